"""The gold reward orders answers the way its documentation says, family by family."""

import math
import subprocess
import sys
from itertools import pairwise
from random import Random
from statistics import fmean

import pytest

from setsail.world import WEIGHTS, draw_request, explain, gold_reward
from setsail.world.answering import EVERYDAY, IDEAL, draw_answer

# Per family: a request, then answers from best to worst.
ORDERED = {
    "ask": (
        "Excuse me, when does the bakery close?",
        "Good day! The bakery closes at 2 pm. Ask for Maud at the bakery before 1 pm.",
        "The bakery closes at 2 pm. Please come to the bakery.",
        "It closes at 2 pm.",
        "Someone may help you later.",
        "It closes at 5 pm. I am sorry about that.",
    ),
    "double": (
        "Who runs the pottery, and are dogs allowed at the sail loft?",
        "Ines runs the pottery. Dogs are welcome at the sail loft. Please come to the pottery at 10 am. Safe travels!",
        "Ines runs the pottery. Dogs are welcome at the sail loft.",
        "Ines runs the pottery.",
        "Nell runs the pottery.",
        "Congratulations! Nell runs the pottery. No dogs are allowed at the sail loft.",
    ),
    "open": (
        "Is the Oddney ferry open at 4 pm on Friday? I am rather upset today.",
        "I am sorry about that. The Oddney ferry will be closed at 4 pm on Friday. Please be by the sea wall at 9 am.",
        "The Oddney ferry will be closed at 4 pm on Friday.",
        "It will be closed at 4 pm.",
        "How lovely! Yes, the Oddney ferry is open at 4 pm.",
    ),
    "booking": (
        "Please book the tea house for six people at 9 am on Sunday.",
        "Good day! The tea house is closed at 9 am, so I have booked for six on Sunday at 11 am."
        " Please come to the tea house at 11 am.",
        "The tea house is closed at 9 am, so I have booked for six on Sunday at 11 am.",
        "It is closed at 9 am.",
        "I have booked the tea house for six on Sunday at 9 am.",
        "I have booked the tea house for five on Monday at 9 am.",
    ),
    "lost": (
        "I lost my red scarf at the music hall on Monday. Can you help me?",
        "I am so sorry to hear it. Your red scarf should be at the wash house."
        " Ask for Runa at the wash house before 3 pm.",
        "I am so sorry to hear it. Your red scarf should be at the wash house.",
        "Your things should be at the wash house.",
        "Your blue scarf should be at the customs hut.",
    ),
    "complaint": (
        "Last Friday the lighthouse charged us twice, and nobody cared.",
        "We are sorry for the trouble. At the lighthouse you will get the second charge back for the double charge."
        " Ask for Wren at the lighthouse before 4 pm.",
        "We are sorry for the trouble. You will get the second charge back.",
        "You will get the second charge back.",
        "Congratulations! You will get a pot of hot tea.",
    ),
    "hurried": (
        "I am in a hurry. Where is the seal garden?",
        "The seal garden is on Gull Rock. Please be on Gull Rock at 11 am.",
        "Good day! The seal garden is on Gull Rock.",
        "Well, let me think about that for a moment. The seal garden is on Gull Rock."
        " I have worked at this desk for many years.",
    ),
}


@pytest.mark.parametrize("family", ORDERED)
def test_better_answers_score_higher(family: str) -> None:
    request, *answers = ORDERED[family]
    scores = gold_reward([request] * len(answers), answers)
    assert all(left - right > 0.1 for left, right in pairwise(scores)), scores


def test_components_sum_to_the_reward() -> None:
    rng = Random(21)
    requests = [draw_request(rng) for _ in range(300)]
    answers = [draw_answer(request, EVERYDAY, rng) for request in requests]
    rewards = gold_reward([request.text for request in requests], answers)
    for request, answer, reward in zip(requests, answers, rewards, strict=True):
        qualities = explain(request.text, answer)
        assert set(qualities) == set(WEIGHTS)
        assert reward == pytest.approx(math.fsum(WEIGHTS[name] * value for name, value in qualities.items()), abs=1e-9)


def test_ideal_answers_are_far_above_everyday_ones() -> None:
    rng = Random(22)
    requests = [draw_request(rng) for _ in range(300)]
    texts = [request.text for request in requests]
    ideal = fmean(gold_reward(texts, [draw_answer(request, IDEAL, rng) for request in requests]))
    everyday = fmean(gold_reward(texts, [draw_answer(request, EVERYDAY, rng) for request in requests]))
    assert ideal > everyday + 2.0


def test_chat_form_and_plain_text_score_the_same() -> None:
    request, answer = ORDERED["ask"][:2]
    chat = gold_reward(
        [[{"role": "system", "content": "Be kind."}, {"role": "user", "content": request}]],
        [[{"role": "assistant", "content": answer}]],
        completion_ids=[[1, 2]],
        anything=["else"],
    )
    assert chat == gold_reward([request], [answer])


def test_unequal_numbers_are_refused_with_a_readable_error() -> None:
    with pytest.raises(ValueError, match="2 prompts and 1 completions"):
        gold_reward(["a", "b"], ["c"])


def test_any_text_gets_a_finite_score() -> None:
    odd = ["", " ", "...", "?!", "\n\n", "日本語のテキスト。", "🙂" * 50, "a" * 5000, "12 pm 12 pm", "the " * 500]
    for prompt in ("", "Where is the bakery?", "🙂"):
        assert all(math.isfinite(score) for score in gold_reward([prompt] * len(odd), odd))


def test_the_world_is_importable_without_torch() -> None:
    code = "import sys, setsail.world; assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
