"""What a policy does to one model, decided slot by slot, and how it is shown: text, tables, a page.

It knows no Keras: whoever knows the weights (`live`, `saved`) hands in a function that measures
them. The name is not `plan`, which is the public function.
"""
