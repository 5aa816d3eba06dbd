"""A tiny model that can all that models can: it draws, captions and upscales, by random weights."""

import dataclasses
from pathlib import Path

import torch

from cogview.models.config import TaskName
from cogview.models.pretrained import PretrainedModel, TaskModel, fields_of
from cogview.sequence.captioning import CaptionTemplate
from cogview.sequence.super_resolution import SuperResolutionTemplate
from cogview.transformer.adapter import AdaptedTransformer
from cogview.transformer.config import AdapterConfig
from cogview.transformer.model import Transformer
from tiny import tiny_model


def model_of_many_tasks(folder: Path, guidance: float = 1.5) -> PretrainedModel:
    """Return a model with the adapters `style`, `caption` and `upscale`, and a whole transformer, `other`, to upscale.

    Args:
        folder: for the text tokenizer's file.
        guidance: its own.
    """
    model = tiny_model(folder, guidance=guidance)
    captions, larger = CaptionTemplate.of(model.template), SuperResolutionTemplate.of(model.template)
    num_positions = max(captions.num_positions, larger.num_positions)
    config = dataclasses.replace(model.transformer.config, num_positions=num_positions)
    transformer, other = (_random(config, seed) for seed in (2, 3))

    def adapter(task: TaskName, template: object, seed: int) -> TaskModel:
        adapted = AdaptedTransformer(transformer, AdapterConfig(rank=4), seed)
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in adapted.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.3)
        return TaskModel(task=task, transformer=adapted.eval(), template=fields_of(template))

    adapters = {
        "style": adapter("style", model.template, 4),
        "caption": adapter("captioning", captions, 5),
        "upscale": adapter("super-resolution", larger, 6),
        "other": TaskModel(task="super-resolution", transformer=other, template=fields_of(larger)),
    }
    return dataclasses.replace(model, source=transformer, adapters=adapters)


def _random(config: object, seed: int) -> Transformer:
    torch.manual_seed(seed)
    transformer = Transformer(config)  # type: ignore[arg-type]
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return transformer.eval()
