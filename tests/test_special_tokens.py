"""The name of a special token in a text is characters, and a special token within an answer makes it no answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from pretrain.model import train_tokenizer
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from toys import COLOUR_TOKENIZER, ROOT, colour_reward
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from posttrain.core.errors import UserError
from posttrain.generator import trl
from posttrain.generator.data import PairText, pair_rows, prompt_completion_rows, prompt_rows
from posttrain.models.tokens import SEPARATOR, control_ids, tokenize_answers, tokenize_prompts
from posttrain.rollouts.sampling import Completion, complete
from posttrain.selector.batch import PoolText, tokenize_pools
from posttrain.selector.scorer import Scorer
from posttrain.tasks import get_task

TEXTS = ["revenue 2019 | 5829 | 5735", "what is < s > / [ PAD ] | im _ end ?", "<s></s><eos>"] * 5
NAMES = ["<s>", "</s>", "<eos>", "<bos>", "<pad>", "<unk>", "[PAD]", "[SEP]", "<|im_end|>", "<|endoftext|>"]  # fmt: skip
BERT = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
LLAMA = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def trained(
    model: Any, trainer: Any, pre: Any, decoder: Any, normalizer: Any = None, **names: str
) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer, tokenizer.decoder, tokenizer.normalizer = pre, decoder, normalizer
    tokenizer.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def llama() -> PreTrainedTokenizerFast:
    """A BPE with bytes and a leading space, whose vocabulary has the special tokens."""
    return trained(
        models.BPE(unk_token="<unk>", byte_fallback=True),
        trainers.BpeTrainer(
            vocab_size=360,
            special_tokens=["<unk>", "<s>", "</s>"],
            initial_alphabet=["\n", *map(chr, range(33, 127))],
            show_progress=False,
        ),
        None,
        decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]),
        normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
        **LLAMA,
    )


def chat() -> PreTrainedTokenizerFast:
    """A BPE over bytes with several ends, as in Llama 3 and Qwen."""
    names = ["<|endoftext|>", "<|im_end|>", "<|im_start|>"]
    return trained(
        models.BPE(ignore_merges=True),
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=names,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoders.ByteLevel(),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )


def word_pieces(pre: Any) -> PreTrainedTokenizerFast:
    trainer = trainers.WordPieceTrainer(
        vocab_size=200, special_tokens=[*BERT.values()], show_progress=False
    )
    made = trained(
        models.WordPiece(unk_token="[UNK]"), trainer, pre, decoders.WordPiece(), None, **BERT
    )
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return made


def bert() -> PreTrainedTokenizerFast:
    return word_pieces(pre_tokenizers.BertPreTokenizer())


def bert_of_words() -> PreTrainedTokenizerFast:
    """A word of the text can be a special token's name, which the vocabulary has."""
    return word_pieces(pre_tokenizers.WhitespaceSplit())


def unigram() -> PreTrainedTokenizerFast:
    """As in XLM-R: the name of a special token is a likely piece, also after normalization."""
    names = ["<pad>", "</s>", "<unk>", "<s>"]
    return trained(
        models.Unigram(),
        trainers.UnigramTrainer(
            vocab_size=90, special_tokens=names, unk_token="<unk>", show_progress=False
        ),
        pre_tokenizers.Metaspace(),
        decoders.Metaspace(),
        normalizers.NFKC(),
        pad_token="<pad>",
        **LLAMA,
    )


def words() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2, "a": 3}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **LLAMA)


def pocket() -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(ROOT / "pretrain/pocket")
    return loaded


LOSSLESS = [pocket, chat, llama]
ALL = [*LOSSLESS, bert, bert_of_words, unigram, words]
Make = Callable[[], PreTrainedTokenizerBase]


def strange(tokenizer: PreTrainedTokenizerBase) -> str:
    """A text with the names of this tokenizer's special tokens and of others, alone and side by side."""
    names = [*NAMES, *tokenizer.all_special_tokens]
    return "\n".join(f"a {name} b{name}{name}c" for name in names) + " ＜/s＞"


def without_ends(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The special ids between the first and the last of a prompt or answer."""
    return control_ids(tokenizer) & {*ids[1:-1]}


@pytest.mark.parametrize("make", ALL)
def test_names_of_special_tokens_are_characters_to_every_tokenizer(make: Make) -> None:
    tokenizer = make()
    text = strange(tokenizer)
    assert without_ends(tokenizer(text)["input_ids"], tokenizer), "the text would have been read"
    prompts = tokenize_prompts([text, "a b", text * 3], tokenizer)
    answers = tokenize_answers([text, "a b", text * 3], tokenizer)
    assert not any(without_ends(ids, tokenizer) for ids in prompts + answers)
    assert [ids[-1] in control_ids(tokenizer) for ids in answers] == [True] * 3


@pytest.mark.parametrize("make", LOSSLESS)
def test_texts_come_back_as_they_were_written(make: Make) -> None:
    """And the end is a token, not its name."""
    tokenizer = make()
    text = strange(tokenizer).removesuffix(" ＜/s＞")
    (ids,) = tokenize_answers([text], tokenizer)
    assert complete(ids, ids[-1:], tokenizer) == Completion(ids, text, True)
    (named,) = tokenize_answers([text + tokenizer.eos_token], tokenizer)
    assert named[: len(ids) - 1] != named[:-1] and named[-1] == tokenizer.eos_token_id
    assert complete(named, ids[-1:], tokenizer).text == text + tokenizer.eos_token


@pytest.mark.parametrize("make", ALL)
def test_ordinary_texts_have_the_tokens_they_always_had(make: Make) -> None:
    tokenizer = make()
    texts = [*TEXTS[:2], "a b", "5829 < 5735 > [2019] </ p|", "é \U0001f600\t\n"]
    expected = tokenizer(texts, add_special_tokens=False)["input_ids"]
    prompts = tokenize_prompts(texts, tokenizer)
    assert [
        ids[len(ids) - len(own) :] for ids, own in zip(prompts, expected, strict=True)
    ] == expected


@pytest.mark.parametrize("make", ALL)
def test_an_exported_selector_reads_the_same_tokens(make: Make) -> None:
    scorer = Scorer.__new__(Scorer)
    scorer.tokenizer = make()
    scorer.special = control_ids(scorer.tokenizer)
    for text in (strange(scorer.tokenizer), "a b", "", SEPARATOR):
        (expected,) = tokenize_answers([text], scorer.tokenizer)
        assert scorer._tokens(SEPARATOR + text) == expected[:-1]


def test_a_name_of_one_character_that_cannot_be_cut_is_refused() -> None:
    tokenizer = words()
    tokenizer.add_special_tokens({"pad_token": "a"})
    with pytest.raises(UserError, match="the tokenizer reads 'a' as a special token"):
        tokenize_prompts(["b a"], tokenizer)


def test_pools_gold_answers_prompts_and_pairs_hold_no_special_token_but_their_own() -> None:
    """The rows of both families; evaluation, sampling, reranking and vLLM read the same prompts and pools."""
    tokenizer = train_tokenizer(TEXTS, 300)
    text = strange(tokenizer)
    example = {"id": "a", "prompts": {"direct": text}, "target": text}
    (pool,), _ = tokenize_pools([PoolText("a", text, [text, "x"])], tokenizer, 9999, 9999)
    (gold,), _ = prompt_completion_rows([example], tokenizer, 9999, 9999)
    (pair,), _ = pair_rows([PairText("a", text, text, "x")], tokenizer, 9999, 9999)
    prompt = pool.prompt_ids
    assert pair["prompt_ids"] == prompt and pair["chosen_ids"] == pool.candidate_ids[0]
    assert gold["input_ids"] == prompt + pool.candidate_ids[0]
    control = control_ids(tokenizer)
    assert [i for i in gold["input_ids"] if i in control] == [1, 2]  # BOS and EOS
    assert prompt_rows([example], tokenizer, len(prompt))[0] == [{"prompt": text, "example": 0}]


# ------------------------------------------------------------------------------------ completions


@pytest.mark.parametrize("finished", [True, False])
def test_a_special_token_within_an_answer_leaves_no_text(finished: bool) -> None:
    """Left out, it would make 7 and 0 one number; its name written in characters is text."""
    tokenizer = pocket()
    pad, bos, end = tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id

    def ids(text: str) -> list[int]:
        return tokenize_prompts([text], tokenizer)[0][1:]

    last = [end] if finished else []
    for own in (
        [*ids("\n#### 7"), pad, *ids("0")],
        [*ids("\n#### 70"), pad],
        [bos, *ids("\n#### 70")],
        [pad],
    ):
        assert complete([*own, *last], [end], tokenizer) == Completion([*own, *last], "", finished)
    for text in ("#### 7<pad>0", "#### 70<eos>", "<bos>#### 70"):
        own = ids(SEPARATOR + text)
        assert complete([*own, *last], [end], tokenizer) == Completion(
            [*own, *last], text, finished
        )


def test_what_the_vocabulary_lacks_is_no_special_token() -> None:
    """Not even if the separator is such, which stays no part of the text; but as the end, it is one."""
    tokenizer = unigram()
    (ids,) = tokenize_answers(["revenue"], tokenizer)
    assert ids[1] == tokenizer.unk_token_id
    assert complete(ids, ids[-1:], tokenizer).text == "revenue"
    assert complete([ids[1], *ids], ids[-1:], tokenizer).text
    tokenizer.eos_token = "<unk>"
    assert tokenizer.unk_token_id in control_ids(tokenizer)


@pytest.mark.parametrize("name", ["finqa", "gsm8k"])
def test_no_text_is_no_answer(name: str) -> None:
    example = {
        "id": "a", "question": "how many?", "target_program": "add(1, 2)", "target_answer": "3", "exe_ans": 3.0,
        "literal_program": "add(1, 2)", "solution": "", "annotations": "keep", "table": [], "references": {},
        "operands": "literal", "tolerance": 0.01,
    }  # fmt: skip
    verdict = get_task(name).score("", example)
    assert verdict.status == "unparseable" and not verdict.correct
    assert not (verdict.answer_strict or verdict.answer_lenient or verdict.program_correct)


def test_grpo_and_rloo_reward_the_text_that_all_stages_read() -> None:
    """TRL hands over texts without the special tokens within them."""
    model = SimpleNamespace(generation_config=GenerationConfig())
    run: Any = SimpleNamespace(model=model, tokenizer=COLOUR_TOKENIZER, reward=colour_reward())
    (red,) = tokenize_answers(["red"], COLOUR_TOKENIZER)
    broken = [*red[:-1], COLOUR_TOKENIZER.pad_token_id, red[-1]]
    logged: dict[str, float] = {}
    rewards = trl.reward_of(run)(
        prompts=["?"] * 3,
        completions=["\nred"] * 3,
        completion_ids=[red, broken, red[:-1]],
        example=[0, 0, 0],
        log_metric=logged.__setitem__,
    )
    assert rewards == [1 / 3, 0.0, 1 / 3]
    assert logged["correct"] == pytest.approx(2 / 3) and logged["unparseable"] == pytest.approx(
        1 / 3
    )
    assert trl.reward_of(run).__name__ == "reward"  # TRL's metrics are named after it
    assert json.dumps(logged)
