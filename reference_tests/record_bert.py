"""Record what Hugging Face's BERT computes in float64, for `test_teacher.py`.

    python reference_tests/record_bert.py DATA      needs torch and transformers; DATA holds teachers/

Writes `recorded/bert_small.npz` (a small random BertForSequenceClassification: weights, inputs, hidden states, loss and
every gradient by autograd) and `recorded/TEACHER.npz` (a real checkpoint's hidden states for some sentences: every
eighth feature and the norm of all).
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers

RECORDED = Path(__file__).parent / "recorded"
VERSIONS = json.dumps({"torch": torch.__version__, "transformers": transformers.__version__})
SENTENCES = [
    "a gripping, often uncomfortable film .",
    "not that its makers seem to have noticed, but the unlikely plot of 1987 still works",
]
EVERY = 8


def small() -> None:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=40,
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=20,
        max_position_embeddings=10,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=3,
        initializer_range=0.5,
        attn_implementation="eager",
    )
    model = transformers.BertForSequenceClassification(config).double()
    with torch.no_grad():  # LayerNorm weights and biases start at 1 and 0, which would hide mistakes
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
        model.bert.embeddings.word_embeddings.weight[0] = 0.1
    generator = np.random.default_rng(0)
    ids = generator.integers(1, 40, (3, 7))
    mask = np.ones_like(ids)
    mask[1, 5:] = mask[2, 3:] = 0
    ids[mask == 0] = 0
    kinds = (np.arange(7) > 3).astype(int) * mask
    labels = np.array([2, 0, 1])
    inputs = {"input_ids": ids, "token_type_ids": kinds, "attention_mask": mask, "labels": labels}
    output = model(**{k: torch.tensor(v) for k, v in inputs.items()}, output_hidden_states=True)
    output.loss.backward()
    record = {"config": json.dumps(config.to_dict()), "versions": VERSIONS, **inputs}
    record |= {f"param/{k}": v.detach().numpy() for k, v in model.named_parameters()}
    record |= {f"grad/{k}": v.grad.numpy() for k, v in model.named_parameters()}
    record |= {f"hidden/{i}": v.detach().numpy() for i, v in enumerate(output.hidden_states)}
    record |= {"logits": output.logits.detach().numpy(), "loss": output.loss.detach().numpy()}
    np.savez_compressed(RECORDED / "bert_small.npz", **record)


def teacher(folder: Path) -> None:
    model = transformers.BertModel.from_pretrained(folder, attn_implementation="eager").double().eval()
    tokenizer = transformers.BertTokenizer(str(folder / "vocab.txt"))
    inputs = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
    record = {"versions": VERSIONS, "sentences": SENTENCES, "every": EVERY}
    record |= {k: v.numpy() for k, v in inputs.items()}
    for i, hidden in enumerate(output.hidden_states):
        record |= {f"hidden/{i}": hidden.numpy()[..., ::EVERY], f"norm/{i}": hidden.norm(dim=-1).numpy()}
    np.savez_compressed(RECORDED / f"{folder.name}.npz", **record)


if __name__ == "__main__":
    small()
    for name in ("bert-tiny", "all-MiniLM-L6-v2"):
        teacher(Path(sys.argv[1]) / "teachers" / name)
