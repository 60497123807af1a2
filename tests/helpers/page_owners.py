"""The owner of every page of a database image, by a full walk: the slow and plain way."""

import struct


def varint(data, at):
    """(value, offset after it); a ninth byte gives eight bits."""
    value = 0
    for n in range(8):
        value = (value << 7) | (data[at + n] & 127)
        if data[at + n] < 128:
            return value, at + n + 1
    return (value << 8) | data[at + 8], at + 9


def owners(image, roots, page_size):
    """{page: name} of all pages in the trees of ``roots`` ({page: name}), chains included."""
    walk = _Walk(image, page_size)
    for root, name in roots.items():
        walk.tree(root, name)
    return walk.found


class _Walk:
    def __init__(self, image, page_size):
        self.image, self.size, self.found = image, page_size, {}

    def page(self, n):
        return self.image[(n - 1) * self.size : n * self.size]

    def tree(self, n, name):
        self.found[n] = name
        data, start = self.page(n), 100 if n == 1 else 0
        kind, count = data[start], struct.unpack_from(">H", data, start + 3)[0]
        interior = kind in (2, 5)
        for at in struct.unpack_from(f">{count}H", data, start + (12 if interior else 8)):
            if interior:
                self.tree(struct.unpack_from(">I", data, at)[0], name)
            if kind != 5:
                self.payload(data, at + 4 * interior, name, table=kind == 13)
        if interior:
            self.tree(struct.unpack_from(">I", data, start + 8)[0], name)

    def payload(self, data, at, name, *, table):
        size, at = varint(data, at)
        if table:
            _, at = varint(data, at)
        most = self.size - 35 if table else (self.size - 12) * 64 // 255 - 23
        if size > most:
            least = (self.size - 12) * 32 // 255 - 23
            local = least + (size - least) % (self.size - 4)
            at += local if local <= most else least
            self.chain(struct.unpack_from(">I", data, at)[0], name)

    def chain(self, n, name):
        while n:
            self.found[n] = name
            n = struct.unpack_from(">I", self.page(n))[0]
