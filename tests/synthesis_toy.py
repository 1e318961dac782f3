"""A library and a till: small enough to know every profile by hand."""

import random
from typing import TypedDict

from rods_jax.environments import toolkit
from rods_jax.types import Call, Task, Turn, World


class BookId(TypedDict):
    book_id: int


class Title(TypedDict):
    title: str


class Fine(TypedDict):
    amount: int


class Balance(TypedDict):
    balance: int


class Library:
    def __init__(self, books: list = (), next_book_id: int = 700):
        self.books = list(books)
        self.next_book_id = next_book_id

    def add_book(self, title: str) -> BookId:
        """Adds a book to the library."""
        self.books.append({"book_id": self.next_book_id, "title": title, "borrower": ""})
        self.next_book_id += 1
        return {"book_id": self.next_book_id - 1}

    def lend_book(self, book_id: int, borrower: str) -> Title:
        """Lends a book to somebody."""
        book = self._book(book_id)
        if book["borrower"]:
            raise ValueError("lent already")
        book["borrower"] = borrower
        return {"title": book["title"]}

    def compute_fine(self, book_id: int) -> Fine:
        """Computes the fine for a book."""
        return {"amount": 13 * self._book(book_id)["book_id"] % 977}

    def _book(self, book_id: int) -> dict:
        for book in self.books:
            if book["book_id"] == book_id:
                return book
        raise ValueError(f"no book {book_id}")


class Till:
    def __init__(self, balance: int = 0):
        self.balance = balance

    def deposit_cash(self, amount: int) -> Balance:
        """Deposits cash in the till."""
        self.balance += amount
        return {"balance": self.balance}


def sample_state(rng: random.Random, classes) -> dict:
    states = {
        "Library": {
            "books": [
                {"book_id": number, "title": title, "borrower": ""}
                for number, title in zip(rng.sample(range(100, 600), 3), ("Emma", "Ulysses", "Dune"))
            ]
        },
        "Till": {"balance": rng.randint(0, 90)},
    }
    return {name: states[name] for name in classes}


def sample_argument(rng: random.Random, tool, parameter: str):
    free = {"title": ("Hamlet", "Faust", "Candide"), "borrower": ("anna", "boris"), "amount": (21, 34, 55)}
    return rng.choice(free[parameter]) if parameter in free else None


TOY = toolkit.domain(
    "toy", {"Library": Library, "Till": Till}, sample_state=sample_state, sample_argument=sample_argument
)
PHRASED = TOY._replace(
    phrases={"add_book": ("put {title} on the shelf",), "lend_book": ("give {book_id} to {borrower}",)},
    nouns={"book_id": "book"},
)

STATE = {"Library": {"books": [], "next_book_id": 700}, "Till": {"balance": 5}}
FINE = 13 * 700 % 977
# add -> lend, add -> fine -> deposit: the book's id and the fine are never spelled out.
TASK = Task(
    "toy_base_0",
    "toy_0",
    "base",
    World(("Library", "Till"), STATE),
    (
        Turn(
            "Add 'Hamlet', then lend it to anna.",
            (Call("add_book", {"title": "Hamlet"}), Call("lend_book", {"book_id": 700, "borrower": "anna"})),
        ),
        Turn("What is the fine for it?", (Call("compute_fine", {"book_id": 700}),)),
        Turn("Put that into the till.", (Call("deposit_cash", {"amount": FINE}),)),
    ),
)
