"""The grammar of requests and its reader agree, and the world is wide."""

from collections import Counter
from random import Random

from setsail.world.answering import EVERYDAY, IDEAL, draw_answer
from setsail.world.asking import draw_request, is_held_out
from setsail.world.claims import is_true, read_answer
from setsail.world.places import KEEPERS, PLACES, clock, hour_of
from setsail.world.reading import read_request


def test_reading_recovers_the_structure_of_every_request() -> None:
    rng = Random(11)
    for _ in range(3000):
        request = draw_request(rng)
        assert read_request(request.text) == request, request.text


def test_requests_are_many_short_and_of_all_families_and_moods() -> None:
    rng = Random(12)
    requests = [draw_request(rng) for _ in range(20_000)]
    # 20,000 draws from N equally likely requests repeat about 2e8 / N times; repeats of single questions dominate here.
    assert len({request.text for request in requests}) > 18_500
    assert set(Counter(request.family for request in requests)) == {
        "ask",
        "double",
        "open",
        "booking",
        "lost",
        "complaint",
    }
    assert set(Counter(request.mood for request in requests)) == {"neutral", "upset", "happy", "hurried"}
    words = [len(request.text.split()) for request in requests]
    assert min(words) >= 4
    assert max(words) <= 45


def test_one_request_in_thirty_two_is_held_out() -> None:
    rng = Random(13)
    share = sum(is_held_out(draw_request(rng).text) for _ in range(20_000)) / 20_000
    # Standard error sqrt(1/32 * 31/32 / 20000) = 0.0012.
    assert abs(share - 1 / 32) < 4.5 * 0.0012


def test_the_ideal_clerk_makes_no_false_claim_and_no_broken_sentence() -> None:
    rng = Random(14)
    for _ in range(500):
        request = draw_request(rng)
        answer = draw_answer(request, IDEAL, rng)
        for sentence in read_answer(answer, request):
            assert sentence.sound, sentence.text
            assert all(is_true(claim, request) for claim in sentence.claims), answer


def test_everyday_answers_vary() -> None:
    rng = Random(15)
    request = draw_request(rng)
    assert len({draw_answer(request, EVERYDAY, rng) for _ in range(100)}) > 60


def test_hours_are_written_and_read_back() -> None:
    assert [clock(hour) for hour in (0, 6, 12, 13, 23)] == ["12 am", "6 am", "12 pm", "1 pm", "11 pm"]
    assert [hour_of(*clock(hour).split()) for hour in range(24)] == list(range(24))


def test_the_fact_table_is_consistent() -> None:
    assert all(4 <= place.opens < place.closes <= 23 for place in PLACES.values())
    assert len(set(KEEPERS)) == len(PLACES)


def test_free_text_degrades_gracefully() -> None:
    assert read_request("Tell me a story about the moon.").family == "other"
    assert read_request("").asks == ()
    mixed = read_request("hi, i'm so excited! where's the LIGHTHOUSE?")
    assert (mixed.mood, mixed.places) == ("happy", ("lighthouse",))
