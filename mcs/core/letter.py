"""The letter around every content: a single column that fits phones, and the footer of the law.

Both parts end with why the reader gets this, the unsubscribe link and the postal address
(CAN-SPAM).
"""

from html import escape
from string import Template

import css_inline

from mcs.core.words import sentence

_HTML = Template("""\
<!DOCTYPE html>
<html>
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="supported-color-schemes" content="light dark">
<title>$sender</title>
<style>
body { margin: 0; padding: 0; background: #f3f4f6; }
.page { width: 100%; background: #f3f4f6; }
.around { padding: 24px 12px; }
.sheet { width: 100%; max-width: 600px; margin: 0 auto; }
.content { padding: 32px; background: #ffffff; border-radius: 8px; color: #1f2937;
  font: 16px/1.6 -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
.footer { padding: 20px 32px; color: #6b7280; text-align: center;
  font: 13px/1.5 -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
.footer a { color: #6b7280; text-decoration: underline; }
.content p { margin: 0 0 16px; }
.content h1 { margin: 0 0 16px; font-size: 26px; line-height: 1.3; }
.content h2 { margin: 24px 0 12px; font-size: 21px; line-height: 1.3; }
.content h3 { margin: 24px 0 8px; font-size: 18px; }
.content a { color: #1d4ed8; }
.content img { max-width: 100%; height: auto; border: 0; }
.content ul, .content ol { margin: 0 0 16px; padding-left: 24px; }
.content blockquote { margin: 0 0 16px; padding-left: 16px; border-left: 3px solid #d1d5db; }
.content pre { overflow: auto; }
.content hr { margin: 24px 0; border: 0; border-top: 1px solid #d1d5db; }
@media (prefers-color-scheme: dark) {
  body, .page { background: #111827 !important; }
  .content { background: #1f2937 !important; color: #f3f4f6 !important; }
  .content a { color: #93c5fd !important; }
  .footer, .footer a { color: #9ca3af !important; }
}
@media (max-width: 480px) {
  .content { padding: 20px !important; }
  .around { padding: 0 !important; }
}
</style>
</head>
<body>
<table role="presentation" class="page" cellpadding="0" cellspacing="0" border="0">
<tr><td class="around" align="center">
<table role="presentation" class="sheet" cellpadding="0" cellspacing="0" border="0">
<tr><td class="content" dir="auto">
$content
</td></tr>
<tr><td class="footer">
<p>$reason<br><a href="$unsubscribe_url">Unsubscribe</a></p>
<p>$address</p>
</td></tr>
</table>
</td></tr>
</table>
</body>
</html>
""")

_INLINER = css_inline.CSSInliner(load_remote_stylesheets=False, keep_at_rules=True)


def html_letter(content: str, sender: str, address: str, unsubscribe_url: str) -> str:
    """The whole html with its styles inlined. ``content`` is clean html, the rest is plain text.

    The caller bounds the size and the depth of ``content``: css-inline does neither.
    """
    return _INLINER.inline(
        _HTML.substitute(
            content=content,
            sender=escape(sender),
            reason=escape(_reason(sender)),
            address="<br>".join(escape(line) for line in address.strip().splitlines()),
            unsubscribe_url=escape(unsubscribe_url),
        )
    )


def text_letter(content: str, sender: str, address: str, unsubscribe_url: str) -> str:
    """The whole text."""
    footer = f"{_reason(sender)}\nUnsubscribe: {unsubscribe_url}\n\n{address.strip()}\n"
    return f"{content}\n\n-- \n{footer}"


def _reason(sender: str) -> str:
    return sentence(
        f"You get this email because your address is on a list of {sender or 'the sender'}"
    )
