"""Rebuild the embedded world's assets: tokenizer, starting model, offline pairs, held-out prompts and their figures.

    python scripts/build_world.py --out src/setsail/world/assets

Everything follows from `--seed` and the number of threads. The steps, in the order of `main`: draw a corpus from the
grammar, train a byte-level BPE tokenizer on it, train a small Qwen3 model on requests and answers, let that model
answer fresh requests twice, and label each pair of answers by the gold reward's Bradley-Terry preference.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from random import Random
from statistics import correlation, fmean, pstdev, stdev

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from setsail.world.answering import EVERYDAY, IDEAL, Clerk, draw_answer
from setsail.world.asking import draw_request, is_held_out
from setsail.world.reading import Request
from setsail.world.reward import gold_reward

PAD, END, SYSTEM, USER, ASSISTANT = "<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] not in ['system', 'user', 'assistant'] -%}"
    "{{ raise_exception('This chat template knows the roles system, user and assistant, not ' + message['role']) }}"
    "{%- endif -%}"
    "{{- '<|' + message['role'] + '|>' -}}"
    "{%- if message['role'] == 'assistant' -%}"
    "{% generation %}{{- message['content'] + '<|end|>' -}}{% endgeneration %}"
    "{%- else -%}{{- message['content'] -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
VOCABULARY = 1280
LONGEST_ANSWER = 64
ATTENTIVE = replace(EVERYDAY, right=IDEAL.right, echoes=IDEAL.echoes)
# Requests are the easy half and not what the model is for: their loss counts little, but it shapes the embeddings.
REQUEST_WEIGHT = 0.1


def say(started: float, text: str) -> None:
    """Print a progress line with wall-clock and CPU seconds."""
    print(f"[{time.time() - started:7.1f} s wall {time.process_time():7.1f} s CPU] {text}", flush=True)


def fresh_request(rng: Random, held_out: bool = False) -> Request:
    """Draw a request from the training part (or the held-out part) of the grammar."""
    while True:
        request = draw_request(rng)
        if is_held_out(request.text) == held_out:
            return request


def train_tokenizer(rng: Random, lines: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE on requests and answers: every byte is in the alphabet, so any text survives a round trip."""
    texts: list[str] = []
    for _ in range(lines):
        request = fresh_request(rng)
        texts += [request.text, draw_answer(request, EVERYDAY, rng)]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[PAD, END, SYSTEM, USER, ASSISTANT],
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def new_model(tokenizer: PreTrainedTokenizerBase, args: argparse.Namespace) -> Qwen3ForCausalLM:
    """A small Qwen3: few layers for speed, grouped queries, tied embeddings."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=args.hidden,
        intermediate_size=args.hidden * 14 // 5,
        num_hidden_layers=args.layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    torch.manual_seed(args.seed)
    return Qwen3ForCausalLM(config)


def chat_of(text: str) -> list[dict[str, str]]:
    """One user turn."""
    return [{"role": "user", "content": text}]


def note(request: Request, rng: Random) -> str:
    """A clerk's note of the guest's own words, such as "on Friday, for nine, at the pottery": copying and no more."""
    words = [f"at the {place}" for place in request.places if request.family != "lost"]
    words += [f"for {request.count}"] if request.count else []
    words += [f"on {request.day}"] if request.day else []
    words += [f"your {request.color} {request.good}"] if request.good else []
    rng.shuffle(words)
    return ", ".join(words)


def dialogue(rng: Random, clerk: Clerk) -> tuple[str, str]:
    """One request and its answer; half of what an attentive clerk writes are notes on bookings and losses."""
    noting = clerk is ATTENTIVE and rng.random() < 0.5
    request = fresh_request(rng)
    while noting and request.family not in ("booking", "lost"):
        request = fresh_request(rng)
    return request.text, note(request, rng) if noting else draw_answer(request, clerk, rng)


def encode(tokenizer: PreTrainedTokenizerBase, rng: Random, rows: int, clerk: Clerk) -> list[tuple[list[int], int]]:
    """Draw `rows` dialogues as (token ids, number of request tokens), shortest first."""
    texts = [dialogue(rng, clerk) for _ in range(rows)]
    left = tokenizer([USER + request + ASSISTANT for request, _ in texts], add_special_tokens=False)["input_ids"]
    right = tokenizer([answer + END for _, answer in texts], add_special_tokens=False)["input_ids"]
    return sorted(((a + b, len(a)) for a, b in zip(left, right, strict=True)), key=lambda row: len(row[0]))


def batches(
    tokenizer: PreTrainedTokenizerBase, rng: Random, size: int, attentive: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless (ids, loss weights) of fresh dialogues, grouped by length so that little is padded.

    The first `attentive` batches come from a clerk who takes up every detail, and half of them are bare notes of the
    details: copying the guest's own words is the slowest thing to learn, and everyday answers show it too seldom.
    """
    for turn in count():
        rows = encode(tokenizer, rng, size * 16, ATTENTIVE if turn * 16 < attentive else EVERYDAY)
        groups = [rows[start : start + size] for start in range(0, len(rows), size)]
        rng.shuffle(groups)
        for group in groups:
            longest = max(len(ids) for ids, _ in group)
            ids = torch.full((size, longest), tokenizer.pad_token_id)
            weights = torch.zeros(size, longest)
            for i, (tokens, head) in enumerate(group):
                ids[i, : len(tokens)] = torch.tensor(tokens)
                weights[i, :head] = REQUEST_WEIGHT
                weights[i, head : len(tokens)] = 1.0
            yield ids, weights


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Warm up over a twentieth of the run, then follow a cosine down to a fiftieth of the peak."""
    warm = max(1, steps // 20)
    if step < warm:
        return peak * (step + 1) / warm
    return peak * (0.02 + 0.49 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))))


def train(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase, args: argparse.Namespace, t0: float) -> None:
    """Supervised training on fresh dialogues; no row is seen twice on purpose."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98))
    source, seen = batches(tokenizer, Random(args.seed + 1), args.batch, args.attentive), 0.0
    model.train()
    for step in range(args.steps):
        ids, weights = next(source)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, args.steps, args.lr)
        logits = model(input_ids=ids).logits[:, :-1]
        losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
        answer = weights[:, 1:] == 1.0
        loss = (losses * weights[:, 1:]).sum() / weights[:, 1:].sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        now = float(losses.detach()[answer].mean())
        seen = now if step == 0 else 0.98 * seen + 0.02 * now
        if step % 100 == 0 or step == args.steps - 1:
            say(t0, f"step {step}/{args.steps}: {seen:.3f} nats per answer token")


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Store bfloat16 weights under a float32 config: half the size, and `from_pretrained` computes in float32."""
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["dtype"] = "float32"
    (folder / "model.safetensors").chmod(0o644)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


@torch.no_grad()
def sample(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str], rows: int = 256
) -> list[tuple[str, int, bool]]:
    """One answer at temperature 1 per text, as (answer, tokens, finished)."""
    prompts = [f"{USER}{text}{ASSISTANT}" for text in texts]
    order = sorted(range(len(texts)), key=lambda i: len(prompts[i]))
    answers: list[tuple[str, int, bool]] = [("", 0, False)] * len(texts)
    for start in range(0, len(order), rows):
        chosen = order[start : start + rows]
        inputs = tokenizer([prompts[i] for i in chosen], return_tensors="pt", padding=True, return_token_type_ids=False)
        drawn = model.generate(**inputs, max_new_tokens=LONGEST_ANSWER)[:, inputs["input_ids"].shape[1] :]
        for i, ids in zip(chosen, drawn.tolist(), strict=True):
            finished = tokenizer.eos_token_id in ids
            length = ids.index(tokenizer.eos_token_id) + 1 if finished else len(ids)
            answers[i] = (tokenizer.decode(ids[:length], skip_special_tokens=True), length, finished)
    return answers


def make_pairs(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, args: argparse.Namespace
) -> list[dict[str, list[dict[str, str]]]]:
    """Two answers per fresh request; unfinished and identical ones are dropped, labels drawn from Bradley-Terry."""
    rng = Random(args.seed + 2)
    torch.manual_seed(args.seed + 2)
    texts = list(dict.fromkeys(fresh_request(rng).text for _ in range(args.pairs * 11 // 10 + 8)))
    drawn = sample(model, tokenizer, [text for text in texts for _ in range(2)])
    rows = []
    for text, (first, _, done), (second, _, also) in zip(texts, drawn[::2], drawn[1::2], strict=True):
        if not (done and also) or first == second:
            continue
        gold = gold_reward([text, text], [first, second])
        if rng.random() >= 1 / (1 + math.exp(gold[1] - gold[0])):
            first, second = second, first
        row = {"chosen": first, "rejected": second}
        rows.append({"prompt": chat_of(text)} | {k: [{"role": "assistant", "content": v}] for k, v in row.items()})
    return rows[: args.pairs]


def write_lines(path: Path, rows: list[dict[str, list[dict[str, str]]]]) -> None:
    """JSON lines, gzipped where the name says so; no time stamp, so equal rows give equal bytes."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    if path.suffix == ".gz":
        buffer = io.BytesIO()
        with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0, filename="") as stream:
            stream.write(text)
        text = buffer.getvalue()
    path.write_bytes(text)


def held_out_rows(seed: int, count: int) -> list[dict[str, list[dict[str, str]]]]:
    """Different requests of the part that is set aside."""
    rng = Random(seed + 3)
    texts: dict[str, None] = {}
    while len(texts) < count:
        texts[fresh_request(rng, held_out=True).text] = None
    return [{"prompt": chat_of(text)} for text in texts]


def measure(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str], seed: int
) -> dict[str, float]:
    """Gold reward of 64 answers per prompt: level, spread, best of n, length and how the two go together."""
    torch.manual_seed(seed + 4)
    drawn = sample(model, tokenizer, [text for text in texts for _ in range(64)])
    rewards = gold_reward([text for text in texts for _ in range(64)], [answer for answer, _, _ in drawn])
    groups = [rewards[start : start + 64] for start in range(0, len(rewards), 64)]
    lengths = [[length for _, length, _ in drawn[start : start + 64]] for start in range(0, len(rewards), 64)]
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "mean": fmean(rewards),
        "std": pstdev(rewards),
        "std_within_prompt": fmean(stdev(group) for group in groups),
        "std_of_pair_difference": pstdev([a - b for a, b in zip(rewards[::2], rewards[1::2], strict=True)]),
        "best_of_16": fmean(max(group[start : start + 16]) for group in groups for start in range(0, 64, 16)),
        "best_of_64": fmean(max(group) for group in groups),
        "answer_tokens": fmean(length for _, length, _ in drawn),
        "finished": fmean(done for _, _, done in drawn),
        "length_correlation_within_prompt": fmean(correlation(g, n) for g, n in zip(groups, lengths, strict=True)),
    }


def parse_args() -> argparse.Namespace:
    """The defaults are those of the shipped assets."""
    parser = argparse.ArgumentParser(description="Rebuild the assets of setsail.world.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "src/setsail/world/assets")
    parser.add_argument("--seed", type=int, default=2406)
    parser.add_argument("--steps", type=int, default=2600, help="training steps")
    parser.add_argument("--attentive", type=int, default=1000, help="first steps, on answers that take up every detail")
    parser.add_argument("--batch", type=int, default=32, help="dialogues per step")
    parser.add_argument("--lr", type=float, default=3e-3, help="peak learning rate")
    parser.add_argument("--hidden", type=int, default=160, help="hidden size, a multiple of 32")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=4000)
    parser.add_argument("--held-out", type=int, default=256)
    parser.add_argument("--measured", type=int, default=128, help="held-out prompts to measure on")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    """Build everything into `--out` and print the figures of docs/world.md."""
    args, t0 = parse_args(), time.time()
    torch.set_num_threads(args.threads)
    tokenizer = train_tokenizer(Random(args.seed), 20_000)
    say(t0, f"tokenizer with {len(tokenizer)} tokens")
    model = new_model(tokenizer, args)
    say(t0, f"model with {sum(p.numel() for p in model.parameters()):,} parameters")
    train(model, tokenizer, args, t0)
    save_model(model, tokenizer, args.out / "model")
    loaded = AutoModelForCausalLM.from_pretrained(args.out / "model", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(args.out / "model")
    rows = make_pairs(loaded, tokenizer, args)
    write_lines(args.out / "pairs.jsonl.gz", rows)
    say(t0, f"{len(rows)} pairs")
    held = held_out_rows(args.seed, args.held_out)
    write_lines(args.out / "held_out.jsonl", held)
    figures = measure(loaded, tokenizer, [row["prompt"][0]["content"] for row in held[: args.measured]], args.seed)
    say(t0, json.dumps({name: round(value, 3) for name, value in figures.items()}, indent=2))


if __name__ == "__main__":
    main()
