"""The ids that are scored and trained on are the ids that were read and drawn."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
from tiny import Build

from setsail.data import RowTokenizer, load_preferences
from setsail.engines import TransformersEngine

HARD = [
    "  two leading spaces",
    "naïve café, 東京 🌊 and \u2028 a line separator",
    "a special token inside: </s> and <pad> here",
    "trailing space ",
    "\n\nHuman: hi\n\nAssistant:",
    "x" * 90 + " a long prompt, of which the end is kept",
]


def _rows() -> list[dict[str, Any]]:
    return [
        {"prompt": prompt, "chosen": f" {prompt[::-1]} yes", "rejected": f"no {i}"} for i, prompt in enumerate(HARD)
    ]


class _Ears:
    """Hears every forward pass of a model: its unpadded rows."""

    def __init__(self, model: Any) -> None:
        self.rows: list[tuple[int, ...]] = []
        model.register_forward_pre_hook(self, with_kwargs=True)

    def __call__(self, module: Any, args: Any, kwargs: Any) -> None:
        mask = kwargs["attention_mask"][:, -kwargs["input_ids"].shape[1] :].bool()
        self.rows += [tuple(ids[kept].tolist()) for ids, kept in zip(kwargs["input_ids"], mask, strict=True)]


def _heard_are_drawn_or_given(heard: set[Any], rows: Any, drawn: dict[int, Any], share: bool, exactly: bool) -> None:
    """Every row's two answers after its prompt, and (``exactly``) nothing else.

    A shared prompt is read once by itself, then its answers; the longest of them up to the token nothing follows.
    """
    allowed: set[tuple[int, ...]] = set()
    for row in rows:
        prompt = row.prompt.token_ids
        sides = drawn.get(row.prompt.row_id) or {row.chosen.token_ids, row.rejected.token_ids}
        if share:
            assert prompt in heard
            assert all({side, side[:-1]} & heard for side in sides if len(side) > 1)
            allowed |= {prompt, *sides, *(side[:-1] for side in sides)}
        else:
            assert {(*prompt, *side) for side in sides} <= heard
            allowed |= {(*prompt, *side) for side in sides}
    if exactly:
        assert heard <= allowed


@pytest.mark.parametrize("share", [False, True], ids=["plain", "shared prompts"])
@pytest.mark.parametrize("chat", [False, True])
def test_ids_scored_are_ids_sampled(
    build: Build, tokenizer: Any, chat_tokenizer: Any, monkeypatch: pytest.MonkeyPatch, chat: bool, share: bool
) -> None:
    """Acceptance test 18: multi-byte characters, leading spaces, special tokens, long prompts kept at their end, in
    generation, reference scoring, training and evaluation alike."""
    chosen = chat_tokenizer if chat else tokenizer
    model = tiny.llama(len(chosen))
    rows = _rows()
    if chat:
        rows = [
            {
                "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": row["prompt"]}],
                "chosen": [{"role": "assistant", "content": row["chosen"]}],
                "rejected": [{"role": "assistant", "content": row["rejected"]}],
            }
            for row in rows
        ]
    trainer = build(
        model=model, data=rows, eval_dataset=rows, processing_class=chosen, method="sail-dpr",
        route_weights="dpr=0.6", per_device_train_batch_size=6, max_steps=1, max_prompt_length=60,
        long_prompts="keep-end", max_completion_length=30, share_prompts=share,
    )  # fmt: skip
    prompts = {row.prompt.row_id: row.prompt.token_ids for row in trainer.train_dataset}
    assert len(prompts) == 6
    assert len(prompts[5]) == 60
    drawn: dict[int, set[tuple[int, ...]]] = {}
    generate = TransformersEngine.generate

    def noting(self: Any, *args: Any, **options: Any) -> Any:
        ears.rows.clear()
        groups = generate(self, *args, **options)
        prefilled = {ids for ids in ears.rows if len(ids) > 1}
        for group in groups:
            assert group.prompt.token_ids == prompts[group.prompt.row_id]
            assert group.prompt.token_ids in prefilled
            drawn[group.prompt.row_id] = {completion.token_ids for completion in group.completions}
        ears.rows.clear()
        return groups

    monkeypatch.setattr(TransformersEngine, "generate", noting)
    ears = _Ears(trainer.model)
    reference = _Ears(trainer.reference.module)  # type: ignore[attr-defined]
    reference.rows.clear()
    trainer.train()
    assert 2 <= len(drawn) <= 5
    for heard in (ears.rows, reference.rows):
        _heard_are_drawn_or_given(set(heard) - {()}, trainer.train_dataset, drawn, share, exactly=heard is ears.rows)
    # Evaluation reads the same prompts.
    drawn.clear()
    trainer.evaluate()
    assert set(drawn) == set(prompts)


def test_the_end_of_a_long_prompt_is_kept(tokenizer: Any) -> None:
    """Acceptance test 18: what is kept is the end, where the question and the answer's marker are."""
    encode = RowTokenizer(
        tokenizer, max_prompt_length=12, max_completion_length=20, eos_token_ids=(1,), long_prompts="keep-end"
    )
    example = load_preferences([{"prompt": HARD[5], "chosen": "yes", "rejected": "no"}])[0]
    kept = encode(example).prompt.token_ids
    assert kept == tuple(tokenizer(HARD[5]).input_ids[-12:])
    assert HARD[5].endswith(tokenizer.decode(kept))


def test_texts_are_the_drawn_ids_decoded(build: Build) -> None:
    """Labelers and pairs.jsonl see the text of exactly the drawn ids, special tokens left out."""
    trainer = build(method="online-dpo", max_steps=2)
    trainer.train()
    for each in trainer.directory.read("pairs"):
        texts = [trainer.processing_class.decode(ids, skip_special_tokens=True) for ids in each["token_ids"]]
        assert [each["chosen"], each["rejected"]] == texts


def test_conversations_stay_conversations(build: Build, chat_tokenizer: Any) -> None:
    rows = [
        {
            "prompt": [{"role": "user", "content": f"question {i}"}],
            "chosen": [{"role": "assistant", "content": "yes"}],
            "rejected": [{"role": "assistant", "content": "no"}],
        }
        for i in range(4)
    ]
    trainer = build(
        model=tiny.llama(len(chat_tokenizer)), processing_class=chat_tokenizer, data=rows, method="online-dpo",
        max_steps=1,
        labeler=lambda prompts, completions, **_: [float(len(c[0]["content"])) for c in completions],
    )  # fmt: skip
    trainer.train()
    written = trainer.directory.read("pairs")
    assert len(written) == 4
    said = [each for each in written if each["chosen"][0]["content"].strip() and each["rejected"][0]["content"].strip()]
    for each in written:
        assert each["prompt"] == rows[each["row_id"]]["prompt"]
        assert [turn["role"] for turn in each["chosen"] + each["rejected"]] == ["assistant", "assistant"]
    assert said
    assert len(load_preferences(said)) == len(said)


def test_the_same_ids_alone_and_together(build: Build, tokenizer: Any) -> None:
    """Token ids of a row do not depend on the rows around it."""
    together = build(data=_rows(), max_completion_length=40, max_prompt_length=200).train_dataset
    for i, row in enumerate(_rows()):
        alone = build(data=[row], max_completion_length=40, max_prompt_length=200).train_dataset[0]
        assert together[i].prompt.token_ids == alone.prompt.token_ids
        assert (together[i].chosen, together[i].rejected) == (alone.chosen, alone.rejected)


def test_stand_ins_for_missing_pairs_have_no_weight(build: Build) -> None:
    trainer = build(method="online-dpo", labeler=lambda prompts, completions, **_: [None] * len(prompts), max_steps=1)
    seen: list[Any] = []
    prepare = trainer.steps.prepare

    def spy(*args: Any) -> Any:
        batches = prepare(*args)
        seen.extend(batches)
        return batches

    trainer.steps.prepare = spy  # type: ignore[method-assign]
    trainer.train()
    assert [(batch.groups, len(batch.answers)) for batch in seen] == [((), 1)]
    assert seen[0].weights.numel() == 0
