"""Models: one folder a task, one paper a file. ``index`` is pure data; builders are imported on use."""
