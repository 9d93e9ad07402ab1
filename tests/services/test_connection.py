"""A connection that ends while a message is on its way: whether its final dot may have left."""

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
