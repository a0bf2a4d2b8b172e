"""A model's input as streams of tokens: checked, viewed, laid out, aimed at, finished."""
