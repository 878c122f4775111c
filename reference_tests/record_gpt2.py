"""Record what Hugging Face's GPT-2 computes in float64, for `test_gpt.py`.

    python reference_tests/record_gpt2.py      needs torch and transformers

Writes `recorded/gpt2_small/`, the checkpoint of a small random GPT2LMHeadModel as Hugging Face saves it (weights in
both formats), and `recorded/gpt2_small.npz`: inputs, hidden states, logits, loss and every gradient by autograd.
"""

import json
from pathlib import Path

import numpy as np
import torch
import transformers

RECORDED = Path(__file__).parent / "recorded"
VERSIONS = json.dumps({"torch": torch.__version__, "transformers": transformers.__version__})


def model_of(seed: int, **sizes) -> transformers.GPT2LMHeadModel:
    """A GPT-2 whose parameters have no zeros and ones, which would hide mistakes."""
    torch.manual_seed(seed)
    no_dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    config = transformers.GPT2Config(
        **sizes, **no_dropout, initializer_range=0.4, bos_token_id=0, eos_token_id=0, attn_implementation="eager"
    )
    model = transformers.GPT2LMHeadModel(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model


def inputs_of(seed: int, vocabulary: int, lengths: list[int]) -> dict[str, np.ndarray]:
    """Texts of several lengths, padded on the right; what is padding is no label."""
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(int)
    ids = np.random.default_rng(seed).integers(1, vocabulary, mask.shape) * mask
    return {"input_ids": ids, "attention_mask": mask}


def answer(model: transformers.GPT2LMHeadModel, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Hidden states, logits, loss of the next real tokens, and every gradient, under the names of the parameters.

    The model's own loss, which takes the logits in float32, is as near to ours as that lets it be.
    """
    ids, mask = (torch.tensor(inputs[name]) for name in ("input_ids", "attention_mask"))
    labels = ids.where(mask == 1, -100)
    output = model(ids, attention_mask=mask, labels=labels, output_hidden_states=True)
    loss = torch.nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    assert abs(loss.item() - output.loss.item()) < 1e-6 * loss.item()
    loss.backward()
    found = {f"hidden/{i}": hidden for i, hidden in enumerate(output.hidden_states)}
    found |= {"logits": output.logits, "loss": loss}
    found |= {f"grad/{name.removeprefix('transformer.')}": p.grad for name, p in model.named_parameters()}
    return {name: value.detach().numpy() for name, value in found.items()}


if __name__ == "__main__":
    folder = RECORDED / "gpt2_small"
    model = model_of(0, vocab_size=23, n_positions=9, n_embd=12, n_layer=2, n_head=3, n_inner=20)
    model.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "generation_config.json").unlink(missing_ok=True)
    inputs = inputs_of(0, 23, [7, 5, 3])
    np.savez_compressed(RECORDED / "gpt2_small.npz", versions=VERSIONS, **inputs, **answer(model, inputs))
