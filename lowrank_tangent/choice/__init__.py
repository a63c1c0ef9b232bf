"""The choice among networks, metrics and rounds by cross-validation: what a candidate is, folds, screening, rule."""
