"""Look at a model file before Keras does: nothing here builds a model, runs code of the file or follows its links."""

from lab3.inputs.inspection.forms import InspectedModel, inspect_model_file

__all__ = ["InspectedModel", "inspect_model_file"]
