"""Boxes: IoU, NMS, coders, anchors, assignment, priors. Import from the submodules."""
