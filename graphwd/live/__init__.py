"""Models in memory: surveyed, copied, edited, proved.

`copying` makes the copy, `carrying` keeps penalties that no config expresses, `proving` compares
two models, and `_keras` alone touches private names of Keras.
"""
