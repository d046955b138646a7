"""Faces in photographs: where they are, and the one crop in which networks see them."""

NO_FACE = "no face found"
BOX = "#xywh="  # between a photograph's name and x,y,width,height of a face, as in W3C's media fragments
