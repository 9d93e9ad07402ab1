"""Passwords: which ones are too easy (NIST SP 800-63B: length and known ones, no composition)."""

SHORTEST, LONGEST = 10, 256

# The ones that guessing begins with, and that are long enough to pass.
_COMMON_ONES = """
    0123456789 1234567890 12345678910 123456789a 123456789q 1234567891 1234512345 1q2w3e4r5t
    1q2w3e4r5t6y 1qaz2wsx3edc 9876543210 abcd123456 abcdefghij administrator administrator1
    adminadmin admin12345 admin123456 asdfghjkl1 asdfghjkl; basketball changeme123 changeme1234
    changemenow correcthorsebatterystaple dragon12345 football123 helloworld hello12345
    iloveyou12 iloveyou123 iloveyou1234 letmein123 letmein1234 marketing1 marketing123
    marketing1234 myp@ssword newpassword p@ssw0rd123 p@ssword123 pa$$word123 passw0rd123
    password00 password01 password10 password11 password12 password123 password1234
    password12345 password123456 passwordpassword princess123 q1w2e3r4t5 q1w2e3r4t5y6
    qazwsxedcr qazwsxedcrfv qwerty12345 qwerty123456 qwertyuiop qwertyuiop1 qwertyuiop123
    qwertyuiop[] qwertyqwerty secret12345 starwars123 sunshine123 superman123 testtest12
    trustno1trustno1 welcome123 welcome1234 welcome12345 zaq12wsxcde3 zxcvbnm123 zxcvbnm1234
"""
COMMON = frozenset(_COMMON_ONES.split())


def weakness(password: str, email: str) -> str:
    """Why the password is refused, as a sentence, or "" when it is good."""
    folded = password.casefold()
    if len(password) < SHORTEST:
        return f"Use {SHORTEST} characters or more: a few words work well."
    if len(password) > LONGEST:
        return f"Use at most {LONGEST} characters."
    if folded == email.casefold() or folded == email.partition("@")[0].casefold():
        return "Your address is the first thing that others would try."
    if folded in COMMON or len(set(folded)) < 4:
        return "This one is on every list of common passwords: choose another."
    return ""
