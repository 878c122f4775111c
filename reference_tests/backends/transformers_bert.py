"""BERT by Hugging Face's `transformers`, for the benchmark of the teacher: class scores of one batch."""

_models = {}


def _model(config, params):
    """The model under Hugging Face's own names, built once; transformers is imported only where it is wanted."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {name: value for name, value in config.items() if name != "hidden_act"}
    model = BertForSequenceClassification(BertConfig(**sizes, num_labels=len(params["classifier.bias"])))
    tensors = {
        name if name.startswith("classifier.") else f"bert.{name}": torch.tensor(value)
        for name, value in params.items()
        if not name.startswith("fit.")
    }
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected and all(name.endswith("position_ids") for name in missing), (missing, unexpected)
    return model.eval()


def teacher(config, params, batch):
    """Logits of a BERT with pooler and classifier."""
    import torch

    if id(params) not in _models:
        _models[id(params)] = _model(config, params)
    with torch.inference_mode():
        return _models[id(params)](**{name: torch.tensor(ids) for name, ids in batch.items()}).logits.numpy()


def teacher_gradients(config, params, batch, labels):
    """Gradients of the cross-entropy of one batch, without dropout."""
    import torch

    if id(params) not in _models:
        _models[id(params)] = _model(config, params)
    model = _models[id(params)]
    model.zero_grad(set_to_none=True)
    model(**{name: torch.tensor(ids) for name, ids in batch.items()}, labels=torch.tensor(labels)).loss.backward()
    return {name: value.grad.numpy() for name, value in model.named_parameters() if value.grad is not None}
