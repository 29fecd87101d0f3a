"""The benchmarks that there are, in the order in which they run."""

BENCHMARKS = {
    "works": "does it work? every way, tried on what training, saving and transfer ask of it",
    "rewriting": "what does it cost once? time and peak memory over eight architectures",
    "files": "a saved model, rewritten as a file, beside cp",
    "growth": "how time grows with depth and width, up to 100,000 layers",
    "steps": "what does it cost per step? training steps, and the first one",
    "logger": "what does PenaltyLogger cost in an epoch?",
    "scheduling": "what does StrengthScheduler cost per step?",
    "training": "does it train the same? loss and weights beside a hand-written penalty",
    "transfer": "does it help? fine-tuning on few examples, over a sweep of strengths",
}
