"""The talk on one SMTP connection: letter after letter, one round trip each where it can be.

The order that keeps the ledger honest: the envelope may go ahead of the row's start, the content
only after it is committed; and the answer to one letter is committed with the start of the next.
"""

from mcs.core.outcomes import Attempt, Scope, Stage, Verdict, cut_off, ends_connection, judge
from mcs.core.smtp import Reply
from mcs.gateways.smtp import Connection, Disconnected, envelope
from mcs.services.desk import Desk
from mcs.services.feeds import Letter
from mcs.services.recorder import Told
from mcs.services.steps import Outcome

# Exim's own limit. A server that allows less refuses the next sender for now, or hangs up: that
# costs a connection, no attempt. With 100, a new one took 2 % of the time at 50 ms of latency.
LETTERS_PER_CONNECTION = 1000


class Talk:
    """One connection's letters.

    Afterwards ``trouble`` says why the server wants no more, if so; ``cut`` why it broke off.
    """

    def __init__(self, connection: Connection, desk: Desk) -> None:
        self._connection = connection
        self._desk = desk
        self._pipelining = connection.offers.pipelining
        self.trouble = ""
        self.cut = ""
        self._carried = 0
        # Whether no letter has come to its end here yet, refused ones included. Afterwards each
        # connection brings the ledger on, so that whatever ends it may be nobody's attempt.
        self._fresh = True

    async def converse(self, first: Letter) -> None:
        """Send letters until there are none, or the connection has carried its share.

        What is left is to say goodbye, if the connection is still open.
        """
        letter: Letter | None = first
        answered: Told | None = None
        self._introduce(first)
        while True:
            if letter is None:
                await self._desk.record(answered)
                answered = None
                letter = await self._another()
                if letter is None:
                    break
            try:
                refusal = await self._hear_envelope(letter)
            except Disconnected as error:
                if not self._fresh:
                    # Between letters a server may simply end a connection (Yahoo does): no attempt.
                    self._desk.put_back(letter)
                    break
                # On a fresh connection it may be this very letter that ends it: an attempt, so
                # that the others get their turn.
                self.cut = str(error)
                attempt = self._desk.attempt(letter)
                verdict = cut_off(False, self._desk.on_doubt, attempt)
                await self._desk.refuse(None, letter, outcome(letter, attempt, verdict, None))
                await self._desk.heed(letter, verdict, str(error))
                break
            if refusal is not None:
                self._fresh = False
                attempt, verdict, reply = refusal
                await self._desk.refuse(answered, letter, outcome(letter, attempt, verdict, reply))
                answered = None
                await self._desk.heed(letter, verdict, str(reply))
                letter = await self._after_refusal(verdict, str(reply))
                continue
            if not await self._desk.may_start(answered, letter):
                # Suppressed, paused or cancelled after the server said "go on": only closing the
                # connection takes back a DATA.
                self._connection.close()
                return
            answered, letter = await self._hand_over(letter)
        await self._desk.record(answered)

    async def _another(self) -> Letter | None:
        """After none was at hand: wait for one, as long as this connection can carry it."""
        if self.trouble or self.cut or self._carried >= LETTERS_PER_CONNECTION:
            return None
        if not self._connection.open:
            return None
        letter = await self._desk.next()
        if letter is not None:
            self._introduce(letter)
        return letter

    def _introduce(self, letter: Letter) -> None:
        """Send the envelope; without pipelining, its first line."""
        message = letter.message
        if self._cannot_carry(letter):
            return
        if self._pipelining:
            self._connection.begin(
                message.envelope_from, message.envelope_to, message.needs_smtputf8
            )
        else:
            self._connection.mail(message.envelope_from, message.needs_smtputf8)

    def _envelope(self, letter: Letter | None) -> bytes:
        """What may travel with the content of the letter before it."""
        if letter is None or not self._pipelining or self._cannot_carry(letter):
            return b""
        message = letter.message
        return envelope(message.envelope_from, message.envelope_to, message.needs_smtputf8)

    def _cannot_carry(self, letter: Letter) -> bool:
        return letter.message.needs_smtputf8 and not self._connection.offers.smtputf8

    async def _hear_envelope(self, letter: Letter) -> tuple[Attempt, Verdict, Reply | None] | None:
        """None when the server waits for the content; else its refusal, and what that means.

        Raises Disconnected, also where the server says that this connection is at its end.
        """
        if self._cannot_carry(letter):
            verdict = Verdict("failed", "the mail server takes no such address (SMTPUTF8)")
            return self._desk.attempt(letter), verdict, None
        if self._pipelining and self._connection.invited():
            return None
        refusal: tuple[Stage, Reply] | None = None
        for stage in (Stage.MAIL, Stage.RCPT, Stage.DATA):
            if not self._pipelining:
                if refusal is not None:
                    break
                self._say(stage, letter)
            try:
                reply = await self._connection.reply()
            except Disconnected:
                if refusal is None:
                    raise
                break  # It said why: the other replies are not to come.
            accepted = reply.code == 354 if stage is Stage.DATA else reply.accepts
            if refusal is None and not accepted:
                refusal = (stage, reply)
            elif refusal is not None and reply.code == 354:
                # It waits for content although it refused the envelope: an empty one, for nobody.
                self._connection.content(b"")
                await self._connection.dot_reply()
        if refusal is None:
            return None
        if not self._fresh and refusal[0] is Stage.MAIL and ends_connection(refusal[1]):
            raise Disconnected(str(refusal[1]), dot_left=False)
        attempt = self._desk.attempt(letter)
        return attempt, judge(*refusal, attempt), refusal[1]

    def _say(self, stage: Stage, letter: Letter) -> None:
        if stage is Stage.RCPT:
            self._connection.rcpt(letter.message.envelope_to)
        elif stage is Stage.DATA:
            self._connection.command("DATA")

    async def _after_refusal(self, verdict: Verdict, said: str) -> Letter | None:
        """Reset and go on with another letter, unless the server wants no more of us for now."""
        if verdict.scope in (Scope.RATE, Scope.SENDER):
            self.trouble = f"the mail server says: {said}"
            return None
        try:
            if verdict.scope is not None:
                self._connection.command("RSET")
                await self._connection.reply()
        except Disconnected as error:
            self.trouble = str(error)
            return None
        letter = self._desk.take()
        if letter is not None:
            self._introduce(letter)
        return letter

    async def _hand_over(self, letter: Letter) -> tuple[Told | None, Letter | None]:
        """Send the content of a started letter, and with it the envelope of the following one."""
        if self._desk.expired(letter):
            # Frozen between the commit and here: somebody else has taken the slice over.
            self._connection.close()
            held_up = "the worker was held up before it began"
            unsent = Outcome(letter.due.id, "pending", self._desk.now(), held_up)
            return (letter.feed, unsent), None
        self._carried += 1
        following = self._desk.take() if self._carried < LETTERS_PER_CONNECTION else None
        self._connection.content(letter.message.data, self._envelope(following))
        try:
            reply = await self._connection.dot_reply()
        except Disconnected as error:
            if following is not None:
                self._desk.put_back(following)
            self.cut = str(error)
            attempt = self._desk.attempt(letter)
            verdict = cut_off(error.dot_left, self._desk.on_doubt, attempt)
            await self._desk.heed(letter, verdict, str(error))
            return (letter.feed, outcome(letter, attempt, verdict, None)), None
        self._fresh = False
        said = await self._said_of(letter, reply)
        if following is not None and not self._pipelining:
            self._introduce(following)
        return (letter.feed, said), following

    async def _said_of(self, letter: Letter, reply: Reply) -> Outcome:
        """What the reply to the final dot, which alone makes a message sent, says of it."""
        if reply.accepts:
            return Outcome(letter.due.id, "sent", self._desk.now(), "", reply.code, reply.text)
        attempt = self._desk.attempt(letter)
        verdict = judge(Stage.DOT, reply, attempt)
        await self._desk.heed(letter, verdict, str(reply))
        return outcome(letter, attempt, verdict, reply)


def outcome(letter: Letter, attempt: Attempt, verdict: Verdict, reply: Reply | None) -> Outcome:
    """The ledger's words for a verdict."""
    return Outcome(
        delivery_id=letter.due.id,
        state=verdict.state,
        at=attempt.at,
        reason=verdict.reason,
        reply_code=reply.code if reply else None,
        reply_text=reply.text if reply else "",
        due_at=verdict.due_at,
        doubted=verdict.doubted,
    )
