"""Load an exported model with plain transformers, without anything of trainrun, and let it answer."""

from __future__ import annotations

import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

QUESTIONS = (
    ("What is this text about?", "temperate; mild winters and cool, rainy summers"),
    ("What is this text about?", "Roman Catholic 75%, Protestant 15%, other 10%"),
    ("Which testament?", "And Jesus said unto his disciples, Verily I say unto you, this generation shall not pass."),
    ("Continue the verse.", "And the LORD spake unto Moses, saying,"),
)


def main(folder: str) -> None:
    """Print the answer to each question."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters of {folder}")
    for instruction, context in QUESTIONS:
        prompt = f"### Instruction\n{instruction}\n\n### Context\n{context}\n\n### Response\n"
        asked = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
        with torch.no_grad():
            made = model.generate(
                **asked, max_new_tokens=16, do_sample=False,
                pad_token_id=tokenizer.eos_token_id, eos_token_id=tokenizer.eos_token_id,
            )  # fmt: skip
        answer = tokenizer.decode(made[0, asked["input_ids"].shape[1] :], skip_special_tokens=True).strip()
        print(f"{instruction} {context}\n    {answer}")


if __name__ == "__main__":
    main(sys.argv[1])
