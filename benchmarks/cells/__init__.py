"""Image sets at several sizes, and what every strategy comes to on them: what `finetune` and `advise` are about."""
