"""Where a webhook may go, told from its URL alone."""

import pytest

from mcs.core.webhooks import BadUrl, read


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("https://shop.example/hook", "shop.example", 443, "/hook"),
        ("https://Shop.Example", "shop.example", 443, "/"),
        ("https://shop.example:8443/a?b=c", "shop.example", 8443, "/a?b=c"),
        ("https://shop.example./", "shop.example.", 443, "/"),
        ("https://Bücher.example/x", "xn--bcher-kva.example", 443, "/x"),
        ("https://93.184.215.14/x", "93.184.215.14", 443, "/x"),
        ("https://[2606:2800:21f:cb07::1]/", "2606:2800:21f:cb07::1", 443, "/"),
    ],
)
def test_public_places(url: str, host: str, port: int, path: str) -> None:
    place = read(url)
    assert (place.host, place.port, place.path) == (host, port, path)
    assert place.secure and not place.trusted


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "missing"),
        ("shop.example/hook", "https://host/path"),
        ("ftp://shop.example/", "https://host/path"),
        ("file:///etc/passwd", "https://host/path"),
        ("https:///hook", "https://host/path"),
        ("https://shop.example:0/", "https://host/path"),
        ("https://shop.example:99999/", "https://host/path"),
        ("https://[::1", "https://host/path"),
        ("https://ann:secret@shop.example/", "user"),
        ("https://@shop.example/", "user"),
        ("https://shop.example/ä", "percent"),
        ("https://shop.example/a b", "space"),
        ("https://shop.example/\r\nX: y", "control"),
        ("http://shop.example/", "not encrypted"),
        ("http://127.0.0.1:80/", "not encrypted"),
        ("https://localhost/", "not a public name"),
        ("https://LOCALHOST./", "not a public name"),
        ("https://a.localhost/", "not a public name"),
        ("https://printer.local/", "not a public name"),
        ("https://metadata.google.internal/", "not a public name"),
        ("https://intranet/", "not a public name"),
        ("https://127.0.0.1/", "not a public address"),
        ("https://10.1.2.3/", "not a public address"),
        ("https://169.254.169.254/latest", "not a public address"),
        ("https://[::1]/", "not a public address"),
        ("https://[::ffff:127.0.0.1]/", "not a public address"),
        ("https://[64:ff9b::7f00:1]/", "not a public address"),
        ("https://[fec0::1]/", "not a public address"),
        ("https://ⓛocalhost/", "not a public name"),
        ("https://127。0。0。1/", "not a public address"),
        ("https://a..ü/", "is no name"),
        ("https://127.1/", "no address"),
        ("https://2130706433/", "no address"),
        ("https://0x7f000001/", "no address"),
        ("https://017700000001/", "no address"),
        ("https://0177.0.0.1/", "no address"),
    ],
)
def test_places_that_no_webhook_goes_to(url: str, words: str) -> None:
    with pytest.raises(BadUrl, match=words):
        read(url)


@pytest.mark.parametrize("given", [None, 7, ["https://shop.example/"]])
def test_what_is_no_text_is_no_url(given: object) -> None:
    with pytest.raises(BadUrl):
        read(given)  # type: ignore[arg-type]


def test_a_host_of_one_s_own_is_allowed_at_its_port_only() -> None:
    allow = ["localhost:9000", "10.0.0.7:443"]
    assert read("http://localhost:9000/hook", allow).trusted
    assert read("https://10.0.0.7/", allow).trusted
    for url in ("http://localhost/", "http://localhost:9001/", "http://10.0.0.7/"):
        with pytest.raises(BadUrl, match="MCS_WEBHOOK_ALLOW"):
            read(url, allow)
