"""One message at a time to the mail server: tests to oneself, and what MCS itself has to say.

Campaign mail has its own lane. This takes seconds at most: somebody waits for the answer.
"""

import re
import smtplib
import ssl
from dataclasses import dataclass

_SECONDS = 8.0
# What would end the address, or its line, in an SMTP command.
_BREAKS_OUT = re.compile(r"[\x00-\x20\x7f<>]")


class NotSent(Exception):
    """The message was not taken; the text says why, and what to look at."""


@dataclass(frozen=True)
class MailServer:
    """Where mail is handed over. At most one of ``use_tls`` (STARTTLS) and ``use_ssl`` is set."""

    host: str
    port: int
    username: str
    password: str
    use_tls: bool
    use_ssl: bool


def send(
    server: MailServer,
    envelope_from: str,
    envelope_to: str,
    message: bytes,
    needs_smtputf8: bool = False,
) -> str:
    """Hand over one message; the server's words of acceptance.

    TLS is verified, and STARTTLS is required where it is asked for. Raises NotSent.
    """
    for address in (envelope_from, envelope_to):
        if _BREAKS_OUT.search(address):
            raise NotSent("An address holds what no address may hold: nothing was sent.")
    try:
        with _connected(server) as client:
            return _handed_over(client, envelope_from, envelope_to, message, needs_smtputf8)
    except smtplib.SMTPAuthenticationError as error:
        raise NotSent(
            f"The mail server did not accept the user name or password ({_reply(error)})."
        ) from error
    except smtplib.SMTPResponseException as error:
        raise NotSent(f"The mail server refused it: {_reply(error)}.") from error
    except smtplib.SMTPNotSupportedError as error:
        raise NotSent(f"The mail server cannot do what is needed: {error}") from error
    except ssl.SSLCertVerificationError as error:
        raise NotSent(
            f"The certificate of {server.host} is not valid: {error.verify_message}."
        ) from error
    except TimeoutError as error:
        raise NotSent(f"{server.host}:{server.port} did not answer in {_SECONDS:.0f} s.") from error
    except (OSError, smtplib.SMTPException) as error:
        raise NotSent(f"{server.host}:{server.port} cannot be reached: {error}.") from error


def _connected(server: MailServer) -> smtplib.SMTP:
    if server.use_ssl:
        client: smtplib.SMTP = smtplib.SMTP_SSL(
            server.host, server.port, timeout=_SECONDS, context=ssl.create_default_context()
        )
    else:
        client = smtplib.SMTP(server.host, server.port, timeout=_SECONDS)
    try:
        client.ehlo()
        if server.use_tls:
            client.starttls(context=ssl.create_default_context())
            client.ehlo()
        if server.username:
            client.login(server.username, server.password)
    except BaseException:
        client.close()
        raise
    return client


def _handed_over(
    client: smtplib.SMTP, envelope_from: str, envelope_to: str, message: bytes, smtputf8: bool
) -> str:
    if smtputf8 and not client.has_extn("smtputf8"):
        raise smtplib.SMTPNotSupportedError("the address needs SMTPUTF8, which it does not offer.")
    # Not client.mail() and rcpt(): smtplib rewrites an address that it cannot read.
    client.command_encoding = "utf-8" if smtputf8 else "ascii"
    extension = " SMTPUTF8" if smtputf8 else ""
    _expect(client.docmd("MAIL", f"FROM:<{envelope_from}>{extension}"), (250,))
    _expect(client.docmd("RCPT", f"TO:<{envelope_to}>"), (250, 251))
    return _expect(client.data(message), (250,))


def _expect(reply: tuple[int, bytes], codes: tuple[int, ...]) -> str:
    code, text = reply
    if code not in codes:
        raise smtplib.SMTPResponseException(code, text)
    return text.decode("utf-8", "replace")


def _reply(error: smtplib.SMTPResponseException) -> str:
    text = error.smtp_error
    words = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
    return f"{error.smtp_code} {words}".rstrip(". ")
