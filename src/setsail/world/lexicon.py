"""Phrases that the grammar, the request reader and the gold reward share, so that each is written down once."""

from __future__ import annotations

import re

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
COUNTS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")

# What a guest says to show a mood. Each phrase carries one of the cue words below.
MOOD_PHRASES: dict[str, tuple[str, ...]] = {
    "neutral": (),
    "upset": (
        "I am rather upset today.",
        "We are cross and wet.",
        "I am quite worried.",
        "I am annoyed, to be honest.",
        "We are disappointed with this trip.",
        "I am fed up by now.",
    ),
    "happy": (
        "It is my birthday!",
        "We are on our honeymoon!",
        "I am thrilled to be here.",
        "It is our wedding anniversary!",
        "We are delighted with your town.",
        "My son is so excited!",
    ),
    "hurried": (
        "I am in a hurry.",
        "Please be quick.",
        "I have no time to lose.",
        "We are in a rush.",
        "Keep it brief, please.",
        "My coach leaves in a minute.",
    ),
}
MOOD_CUES: dict[str, re.Pattern[str]] = {
    "upset": re.compile(r"\b(upset|cross|worried|annoyed|disappointed|fed up|angry|unhappy)\b", re.I),
    "happy": re.compile(r"\b(birthday|honeymoon|thrilled|anniversary|delighted|excited|celebrating)\b", re.I),
    "hurried": re.compile(r"\b(hurry|quick|quickly|no time|rush|brief|in a minute)\b", re.I),
}

# What the desk says. Every tuple is used by the answer grammar; the patterns below recognize a little more.
APOLOGIES = (
    "I am sorry about that.",
    "I am so sorry to hear it.",
    "Please accept our apologies.",
    "We are sorry for the trouble.",
)
CHEERS = ("How lovely!", "Congratulations!", "What happy news!", "We are so glad for you!")
GREETINGS = ("Good day!", "Welcome to Tidewell!", "Thank you for writing.", "Hello and welcome!")
FAREWELLS = ("Enjoy your day!", "Safe travels!", "We look forward to it.", "All the best to you!")
FILLERS = (
    "Well, let me think about that for a moment.",
    "There is always a lot going on here.",
    "As you may know, the harbor is busy.",
    "People often ask us such things.",
    "I have worked at this desk for many years.",
    "The gulls are loud again this week.",
)
VAGUE_STEPS = (
    "Come by some time soon.",
    "Someone may help you later.",
    "Maybe ask around in town.",
    "Perhaps try again another day.",
)

APOLOGY = re.compile(r"\b(sorry|apolog\w+|regret)\b", re.I)
CHEER = re.compile(r"\b(lovely|congratulations|happy news|glad for you|wonderful)\b", re.I)
COURTESY = re.compile(
    r"\b(good day|welcome to|thank you|hello and welcome|enjoy your|safe travels|look forward|all the best)\b", re.I
)
VAGUE = re.compile(
    r"\b(some time|someone|maybe|perhaps|around|or so|i think|i guess|let me think|a lot going on|as you may know"
    r"|people often ask|many years|gulls are loud|another day)\b",
    re.I,
)
STEP = re.compile(r"^(please |then |just |simply )*(come|go|ask|be|bring|meet|call|walk|knock|head)\b", re.I)

TIME = re.compile(r"\b(1[0-2]|[1-9]) (am|pm)\b", re.I)
PRICE = re.compile(r"\b(\d{1,3}) crowns?\b", re.I)


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# A sentence without one of these is not a sentence. The list holds the desk's verbs and common English ones.
VERBS = _set(
    "is are was were be am have has had do does did will can may must should owe offer give get cost costs pay open"
    " opens close closes start starts stop stops shut shuts stay stays run runs look looks find keep keeps kept come go"
    " ask meet bring call walk knock head book booked reserved set wait know think help thank enjoy see hold holds"
    " stand stands hope leave leaves need take try went accept worked lies sits goes belongs wish"
)
# Real sentences are held together by such words; a heap of keywords is not.
FUNCTION_WORDS = _set(
    "the a an of to at in on by for from with and or but so you your we our us i my me it its this that is are was be"
    " am will can may must have has do does not no under before after until there"
)
QUESTION_WORDS = _set("is are was does do did will can could may would when what where who how why")


def words_of(text: str) -> list[str]:
    """Lower-case words and numbers of `text`, punctuation dropped."""
    return re.findall(r"[^\W_]+(?:['\u2019][^\W_]+)?", text.lower())
