"""OpenVINO: its intermediate representation, a graph (.xml) with its weights beside it (.bin)."""

from tuner.model import Form

OPENVINO = Form("openvino", "model.xml")
