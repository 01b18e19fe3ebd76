"""Labels that a finished model gives to images, as partial labels to train other networks with.

Pseudo-labels as auxiliary tasks: "Impartial Auxiliary Learning", section IV-D, where a hard threshold on the
score makes uncertain pixels ignore. An exported model gives no scores but maps, so its confidence is measured
as how well it agrees with itself on several views of the image; see :mod:`training.pseudo.agreement`.
"""
