"""Files, console, machine and TensorFlow: what every layer may use."""
