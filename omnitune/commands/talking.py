"""The subcommands that let a model answer."""

from __future__ import annotations

from omnitune.commands.wiring import takes
from omnitune.config.serving import AnswerConfig, ServeConfig, WebConfig
from omnitune.sample import UserError


@takes(WebConfig)
def web(config: WebConfig) -> int:
    """Opens a page to talk to models: pictures, sounds, two side by side, what they saw."""
    _require_server()
    from omnitune.serving.web.pages import serve_page

    return serve_page(config)


@takes(ServeConfig)
def serve(config: ServeConfig) -> int:
    """Answers programs: an OpenAI-compatible server."""
    _require_server()
    from omnitune.serving.api.server import serve

    return serve(config)


def _require_server() -> None:
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


@takes(AnswerConfig)
def answer(config: AnswerConfig) -> int:
    """Answers every record of data, and writes the answers to a file."""
    from omnitune.serving.answering import answer_data

    return answer_data(config)
