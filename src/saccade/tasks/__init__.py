"""One file a task: how a model of that task learns, is scored, predicts."""
