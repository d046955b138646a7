"""What a page of the report holds, as its tests ask for it."""

import json
from html.parser import HTMLParser


class Page(HTMLParser):
    """figures: what is handed to Plotly; numbers: exact values of <data>; images; names of elements; all text."""

    def __init__(self, content: str):
        super().__init__(convert_charrefs=True)
        self.figures, self.numbers, self.images, self.ids = [], [], [], []
        self.elements, self.text, self.attributes = set(), "", set()
        self._inside = ""
        self.feed(content)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.elements.add(tag)
        self.attributes |= set(found)
        self._inside = "json" if found.get("type") == "application/json" else tag
        if tag == "data":
            self.numbers.append(float(found["value"]))
        if tag == "img":
            self.images.append(found)

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "json":
            self.figures.append(json.loads(data))
        elif self._inside not in ("script", "style"):
            self.text += data

    def curve(self, name: str) -> list[dict]:
        """The lines of the chart of a metric."""
        return next(f["data"] for f in self.figures if f["layout"]["yaxis"]["title"]["text"] == name)
