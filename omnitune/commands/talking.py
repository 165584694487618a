"""The subcommands that let a model answer."""

from __future__ import annotations

from omnitune.commands.wiring import takes
from omnitune.config.serving import AnswerConfig, ServeConfig
from omnitune.sample import UserError


@takes(ServeConfig)
def serve(config: ServeConfig) -> int:
    """Answers programs: an OpenAI-compatible server."""
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"the server needs {error.name}, which is not installed; "
            "run pip install 'omnitune[serve]'"
        ) from None
    from omnitune.serving.api.server import serve

    return serve(config)


@takes(AnswerConfig)
def answer(config: AnswerConfig) -> int:
    """Answers every record of data, and writes the answers to a file."""
    from omnitune.serving.answering import answer_data

    return answer_data(config)
