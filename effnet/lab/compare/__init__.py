"""The networks that EfficientNet was measured against, and the papers' tables, reproduced."""
