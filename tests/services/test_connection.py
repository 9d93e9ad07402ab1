"""A connection that ends while a message is on its way: what was heard, and whether its final dot
may have left."""

import asyncio

import pytest

from mcs.gateways.smtp import Connection, Disconnected


class Transport(asyncio.Transport):
    """Takes what it is given; ``held`` bytes of it have not left."""

    held = 0

    def write(self, data: object) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return self.held


@pytest.mark.parametrize(("held_of_the_dot", "left"), [(-1, True), (0, True), (1, False)])
def test_the_next_envelope_is_not_the_dot(held_of_the_dot: int, left: bool) -> None:
    async def cut() -> Disconnected:
        connection, transport = Connection(), Transport()
        connection.connection_made(transport)
        connection.content(b"Subject: x\r\n\r\nx\r\n")
        connection.command("x" * 98)  # A hundred bytes of the next envelope.
        transport.held = 100 + held_of_the_dot
        connection.give_up("MCS was told to end")
        with pytest.raises(Disconnected) as ended:
            await connection.dot_reply()
        return ended.value

    assert asyncio.run(cut()).dot_left is left


@pytest.mark.parametrize("after", ["250 OK", "354 Go on"])
def test_what_comes_after_nonsense_answers_nothing(after: str) -> None:
    async def heard() -> list[int]:
        connection = Connection()
        connection.connection_made(Transport())
        for said in ("250 queued\r\n\r\n", f"{after}\r\n"):
            connection.data_received(said.encode())
        codes = [(await connection.reply()).code]
        with pytest.raises(Disconnected, match="no SMTP reply"):
            codes.append((await connection.reply()).code)
        return codes

    assert asyncio.run(heard()) == [250]


def test_content_for_a_connection_that_has_ended_never_leaves() -> None:
    """The server hung up after it had said 354, while the start was being committed."""

    async def cut() -> Disconnected:
        connection = Connection()
        connection.connection_made(Transport())
        connection.eof_received()
        connection.content(b"Subject: x\r\n\r\nx\r\n")
        with pytest.raises(Disconnected) as ended:
            await connection.dot_reply()
        return ended.value

    assert asyncio.run(cut()).dot_left is False
