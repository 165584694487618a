from omnitune.serving.python import ChatModel as ChatModel
from omnitune.serving.python import load_model as load_model

__version__: str
