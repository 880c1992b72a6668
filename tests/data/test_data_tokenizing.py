"""Token ids: what is scored is what the template and the tokenizer write, with one BOS and one EOS."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from transformers import GenerationConfig

from setsail.core import ConfigError, DataError
from setsail.data import RowTokenizer, TokenizedPreferences, eos_token_ids, load_preferences


def user(text):
    return {"role": "user", "content": text}


def bot(text):
    return {"role": "assistant", "content": text}


def rows_of(tokenizer, *, eos=None, prompt_limit=None, answer_limit=None, **kwargs):
    return RowTokenizer(
        tokenizer,
        max_prompt_length=prompt_limit,
        max_completion_length=answer_limit,
        eos_token_ids=eos or eos_token_ids(tokenizer),
        **kwargs,
    )


def example(prompt="What is one and one?", chosen=" It is two.", rejected=" Three.", **columns):
    return load_preferences([{"prompt": prompt, "chosen": chosen, "rejected": rejected, **columns}])[0]


def refused(error, call, *args):
    with pytest.raises(error) as caught:
        call(*args)
    return str(caught.value)


# Which tokens end an answer.


def test_eos_ids(plain, user_end):
    end = user_end.convert_tokens_to_ids("<|end|>")
    assert eos_token_ids(plain) == (0,)
    assert eos_token_ids(user_end, GenerationConfig(eos_token_id=end)) == (0, end)
    assert eos_token_ids(user_end, GenerationConfig(eos_token_id=[0, end, 3])) == (0, end, 3)
    assert eos_token_ids(user_end, GenerationConfig()) == (0,)


def test_no_eos(plain):
    bare = pickle.loads(pickle.dumps(plain))
    bare.eos_token = None
    assert "declares an end-of-sequence token" in refused(ConfigError, eos_token_ids, bare)
    assert eos_token_ids(bare, GenerationConfig(eos_token_id=7)) == (7,)
    assert rows_of(bare, eos=(7,))(example()).chosen.token_ids[-1] == 7


# Strings.


@pytest.mark.parametrize("name", ["plain", "llama", "chatml"])
@pytest.mark.parametrize(
    ("prompt", "chosen"),
    [
        ("What is one and one?", " It is two."),
        ("Leading and trailing ", "  two spaces\n\n"),
        ("Wie heißt der Fluß? 川は?", " Loire 🚣\u200d♀️ naïve"),
        ("ends mid wo", "rd"),
    ],
)
def test_round_trip_of_strings(request, name, prompt, chosen):
    tokenizer = request.getfixturevalue(name)
    row = rows_of(tokenizer)(example(prompt, chosen))
    assert row.chosen.text == chosen
    assert tokenizer.decode(row.prompt.token_ids + row.chosen.token_ids, skip_special_tokens=True) == prompt + chosen
    assert row.chosen.token_ids[-1] == tokenizer.eos_token_id
    assert row.chosen.token_ids.count(tokenizer.eos_token_id) == 1
    assert row.chosen.finished
    assert row.prompt.text == prompt
    assert row.prompt.messages is None


def test_bos_once(llama):
    bos = llama.bos_token_id
    row = rows_of(llama)(example())
    assert row.prompt.token_ids[0] == bos
    assert (row.prompt.token_ids + row.chosen.token_ids + row.rejected.token_ids).count(bos) == 1
    written = rows_of(llama)(example("<s>What is one and one?"))
    assert written.prompt.token_ids == row.prompt.token_ids


def test_tokenizer_that_closes_every_text(llama):
    from tokenizers import processors

    closing = pickle.loads(pickle.dumps(llama))
    closing.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    row = rows_of(closing)(example())
    assert closing("a")["input_ids"][-1] == 1
    assert row == rows_of(llama)(example())
    assert rows_of(closing)(example("One.</s>")).prompt.token_ids[-1] == 1


def test_special_tokens_in_a_prompt(chatml):
    text = "<|im_start|>user\nHi.<|im_end|>\n<|im_start|>assistant\n"
    row = rows_of(chatml)(example(text, "Yes."))
    assert row.prompt.token_ids.count(chatml.eos_token_id) == 1
    assert chatml.decode(row.prompt.token_ids) == text


def test_answer_written_with_its_eos(plain):
    assert rows_of(plain)(example(chosen=" two<eos>")).chosen == rows_of(plain)(example(chosen=" two")).chosen


def test_tokenizer_that_prepends_a_space(plain):
    from tokenizers import pre_tokenizers

    spaced = pickle.loads(pickle.dumps(plain))
    spaced.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    assert rows_of(spaced)(example()).chosen.token_ids == rows_of(plain)(example()).chosen.token_ids
    twice = example(chosen="  It is two.")
    assert rows_of(spaced)(twice).chosen.token_ids == rows_of(plain)(twice).chosen.token_ids


def test_tokenizer_that_prepends_a_space_to_every_text():
    """As older SentencePiece models do: " two" alone would become two spaces and "two"."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(["</s>", *"\u2581abst?"])}, []))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    backend.decoder = decoders.Replace("\u2581", " ")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    row = rows_of(tokenizer)(example("a?", " bat", " tab"))
    assert tokenizer.convert_ids_to_tokens(row.chosen.token_ids) == ["\u2581", "b", "a", "t", "</s>"]
    assert tokenizer.decode(row.prompt.token_ids + row.chosen.token_ids) == " a? bat</s>"


# Conversations.


def conversation(*answer, prompt=(("user", "What is one and one?"),), **columns):
    messages = [{"role": role, "content": content} for role, content in prompt]
    return example(messages, [bot(text) for text in answer or ("It is two.",)], [bot("Three.")], **columns)


def test_chatml(chatml):
    row = rows_of(chatml)(conversation())
    assert (
        chatml.decode(row.prompt.token_ids)
        == "<|im_start|>user\nWhat is one and one?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert chatml.decode(row.chosen.token_ids) == "It is two.<|im_end|>"
    assert row.chosen.text == "It is two."
    assert row.prompt.text == "What is one and one?"
    assert row.prompt.messages == (user("What is one and one?"),)


def test_template_whose_end_of_turn_is_not_the_tokenizers_eos(user_end):
    end = user_end.convert_tokens_to_ids("<|end|>")
    row = rows_of(user_end, eos=(0, end))(conversation())
    assert user_end.decode(row.prompt.token_ids) == "<|user|>What is one and one?<|end|><|assistant|>"
    assert user_end.decode(row.chosen.token_ids) == "It is two.<|end|>"
    undeclared = rows_of(user_end)(conversation())
    assert user_end.decode(undeclared.chosen.token_ids) == "It is two.<|end|><eos>"


def test_template_with_bos(llama):
    row = rows_of(llama)(conversation())
    assert llama.decode(row.prompt.token_ids) == "<s>[INST] What is one and one? [/INST]"
    assert llama.decode(row.chosen.token_ids) == " It is two.</s>"
    assert row.prompt.token_ids.count(llama.bos_token_id) == 1


@pytest.mark.parametrize("name", ["chatml", "user_end", "llama"])
def test_prompt_and_answer_are_what_the_template_writes(request, name):
    tokenizer = request.getfixturevalue(name)
    eos = (0, 4) if name == "user_end" else None
    turns = (("system", "Be kind."), ("user", "Hi 川."), ("assistant", "Hello 🚣."), ("user", "What is one and one?"))
    turns = turns[1:] if name == "llama" else turns
    given = conversation(prompt=turns)
    row = rows_of(tokenizer, eos=eos)(given)
    whole = tokenizer.apply_chat_template([*given.prompt, *given.chosen], tokenize=True, return_dict=False)
    ids = list(row.prompt.token_ids + row.chosen.token_ids)
    assert ids == whole[: len(ids)]
    assert tokenizer.decode(whole[len(ids) :]).strip() == ""


def test_several_assistant_turns_end_at_the_last(chatml):
    row = rows_of(chatml)(conversation("It is", "two."))
    assert chatml.decode(row.chosen.token_ids) == "It is<|im_end|>\n<|im_start|>assistant\ntwo.<|im_end|>"


def with_template(tokenizer, template):
    changed = pickle.loads(pickle.dumps(tokenizer))
    changed.chat_template = template
    return changed


def test_ids_that_differ_where_the_texts_agree(plain):
    """The border lies inside a word: the ids of the whole do not begin with the prompt's."""
    tokenizer = with_template(plain, "{% for m in messages %}{{ m['content'] }}{% endfor %}")
    row = rows_of(tokenizer)(example([user("What is on")], [bot("e and one?")], [bot("ce?")]))
    whole = tokenizer("What is one and one?")["input_ids"]
    assert whole[: len(row.prompt.token_ids)] != list(row.prompt.token_ids)
    assert tokenizer.decode(row.prompt.token_ids) == "What is on"
    assert tokenizer.decode(row.chosen.token_ids) == "e and one?<eos>"


def test_template_that_rewrites_the_prompt(plain):
    template = "{{ messages | length }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    message = refused(DataError, rows_of(with_template(plain, template)), conversation())
    assert message.startswith("row 1: the chat template writes a prompt differently once an answer follows")
    assert "after 0 equal characters the prompt goes on with '1What is" in message
    assert "chat_template_kwargs (enable_thinking=False, say)" in message


def test_template_arguments(plain):
    template = "{{ mode }}{{ tools | length if tools else '' }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer = with_template(plain, template)
    of = rows_of(tokenizer, chat_template_kwargs={"mode": "A:"})
    assert tokenizer.decode(of(conversation()).prompt.token_ids) == "A:What is one and one?"
    own = of(conversation(chat_template_kwargs={"mode": "B:"}, tools=[{"type": "function", "name": "sum"}]))
    assert tokenizer.decode(own.prompt.token_ids) == "B:1What is one and one?"


def test_conversation_without_a_template(plain):
    message = refused(ConfigError, rows_of(plain), conversation())
    assert "the tokenizer has no chat template to write them with" in message
    assert "set tokenizer.chat_template" in message


# Limits.


def test_long_answers_are_cut_without_an_eos(plain):
    whole = rows_of(plain)(example()).chosen
    cut = rows_of(plain, answer_limit=whole.length - 1)(example()).chosen
    assert cut.token_ids == whole.token_ids[:-1]
    assert not cut.finished
    assert plain.eos_token_id not in cut.token_ids
    exact = rows_of(plain, answer_limit=whole.length)(example()).chosen
    assert exact == whole
    short = rows_of(plain, answer_limit=2)(example()).chosen
    assert short.text == plain.decode(whole.token_ids[:2])


def test_long_prompts(plain):
    whole = rows_of(plain)(example()).prompt.token_ids
    message = refused(DataError, rows_of(plain, prompt_limit=3), example())
    assert message.startswith(f"row 1: the prompt has {len(whole)} tokens, more than max_prompt_length=3.")
    kept = rows_of(plain, prompt_limit=3, long_prompts="keep-end")(example()).prompt
    assert kept.token_ids == whole[-3:]
    assert kept.text == "What is one and one?"
    assert rows_of(plain, prompt_limit=len(whole))(example()).prompt.token_ids == whole


def test_limits_that_cannot_be(plain):
    assert "max_prompt_length=0 must be at least 1 token" in refused(
        ConfigError, lambda: rows_of(plain, prompt_limit=0)
    )
    assert "'drop', 'keep-end'" in refused(ConfigError, lambda: rows_of(plain, long_prompts="keep-start"))
    assert "eos_token_ids is empty" in refused(
        ConfigError, lambda: RowTokenizer(plain, max_prompt_length=None, max_completion_length=None, eos_token_ids=())
    )


def test_other_columns_reach_the_prompt(plain):
    row = rows_of(plain)(example(answer="2", p=0.75))
    assert row.prompt.columns == {"answer": "2"}
    assert row.p == 0.75


# The tokenized set.


def preferences(**kwargs):
    rows = [
        {"prompt": f"What is one and {i}?" + " Please." * (i == 3) * 40, "chosen": f" It is {i}.", "rejected": " No."}
        for i in range(6)
    ]
    rows[2]["prompt"] = ""
    return load_preferences(rows, **kwargs)


def test_rows_are_those_of_the_tokenizer(chatml):
    data, of = preferences(), rows_of(chatml)
    rows = TokenizedPreferences(data, of)
    assert len(rows) == 5
    assert list(rows) == [of(example) for example in data]
    assert rows[-1] == rows[4]
    assert [row.prompt.row_id for row in rows] == [0, 1, 3, 4, 5]
    assert rows.lengths.tolist() == [[len(r.prompt.token_ids), r.chosen.length, r.rejected.length] for r in rows]
    assert rows._ids.dtype == np.int32
    with pytest.raises(IndexError):
        rows[5]


def test_counts_with_limits(plain):
    dropped = TokenizedPreferences(preferences(), rows_of(plain, prompt_limit=30))
    assert dropped.counts == {
        "examples": 5, "rows": 4, "dropped_long_prompts": 1,
        "cut_prompts": 0, "cut_answers": 0, "dropped_same_when_cut": 0,
    }  # fmt: skip
    kept = TokenizedPreferences(preferences(), rows_of(plain, prompt_limit=30, long_prompts="keep-end"))
    assert (kept.counts["rows"], kept.counts["cut_prompts"], kept.counts["dropped_long_prompts"]) == (5, 1, 0)
    assert kept.lengths[:, 0].max() == 30
    cut = TokenizedPreferences(preferences(), rows_of(plain, answer_limit=2))
    assert cut.counts["cut_answers"] == 10
    assert not cut[0].chosen.finished


def test_pairs_that_are_equal_within_the_limit(plain):
    data = load_preferences(
        [
            {"prompt": "a", "chosen": " It is two.", "rejected": " It is three."},
            {"prompt": "b", "chosen": "x", "rejected": "y"},
        ]
    )
    rows = TokenizedPreferences(data, rows_of(plain, answer_limit=1))
    assert rows.counts["dropped_same_when_cut"] == 1
    assert rows[0].prompt.text == "b"


def test_nothing_left(plain):
    message = refused(DataError, TokenizedPreferences, preferences(), rows_of(plain, prompt_limit=1))
    assert "no row is left of 5: 5 prompts are longer than max_prompt_length=1 tokens" in message
    assert "long_prompts='keep-end'" in message


def test_template_error_names_the_set_and_the_row(plain):
    data = load_preferences([{"prompt": [user("a")], "chosen": "b", "rejected": "c"}])
    of = rows_of(with_template(plain, "{{ messages | length }}"))
    assert refused(DataError, TokenizedPreferences, data, of).startswith("dataset (list): row 1: the chat template")


def test_prompts_only(plain):
    rows = TokenizedPreferences(load_preferences([{"prompt": "a"}], needs_pairs=False), rows_of(plain))
    assert rows[0].chosen is None
    assert rows[0].rejected is None


def test_fingerprint(plain, chatml):
    first, again = (TokenizedPreferences(preferences(), rows_of(plain)).fingerprint for _ in range(2))
    assert first == again
    assert len(first) == 32
    others = [rows_of(chatml), rows_of(plain, answer_limit=3), rows_of(plain, prompt_limit=30)]
    assert len({first, *(TokenizedPreferences(preferences(), of).fingerprint for of in others)}) == 4


def test_pickles(plain):
    rows = TokenizedPreferences(preferences(), rows_of(plain))
    copy = pickle.loads(pickle.dumps(rows))
    assert list(copy) == list(rows)
    assert copy.fingerprint == rows.fingerprint
