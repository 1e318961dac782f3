"""Accounts: no money leaves a frozen account, and none goes below zero."""

from collections.abc import Sequence

from rods_jax.environments.workplace.vocabulary import Record, Result, find, history


class AccountId(Result):
    account_id: int


class Amount(Result):
    amount: int


class Balance(Result):
    balance: int


class AccountStatus(Result):
    status: str


class Accounts:
    """Expense accounts, one for each person, in whole dollars."""

    def __init__(self, accounts: Sequence[Record] = (), next_account_id: int = 1, long_context: bool = False):
        # {"account_id": int, "person": str, "balance": int, "status": "active" | "frozen"}
        self.accounts = list(accounts)
        self.next_account_id = next_account_id
        self._history = history("spent", long_context)

    def open_account(self, person: str) -> AccountId:
        """Opens an empty account for a person who has none.

        Args:
            person: Who owns the account.
        """
        if any(account["person"] == person for account in self.accounts):
            raise ValueError(f"{person} has an account")
        account_id = self.next_account_id
        self.next_account_id += 1
        self.accounts.append({"account_id": account_id, "person": person, "balance": 0, "status": "active"})
        return {"account_id": account_id, **self._history}

    def find_account(self, person: str) -> AccountId:
        """Finds the account of a person.

        Args:
            person: Who owns the account.
        """
        return {"account_id": find(self.accounts, "person", person)["account_id"], **self._history}

    def check_balance(self, account_id: int) -> Amount:
        """Tells how much money an account holds.

        Args:
            account_id: The account.
        """
        return {"amount": find(self.accounts, "account_id", account_id)["balance"], **self._history}

    def deposit_money(self, account_id: int, amount: int) -> Balance:
        """Puts money into an account.

        Args:
            account_id: The account.
            amount: How many dollars.
        """
        account = find(self.accounts, "account_id", account_id)
        _require_positive(amount)
        account["balance"] += amount
        return {"balance": account["balance"], **self._history}

    def withdraw_money(self, account_id: int, amount: int) -> Balance:
        """Takes money out of an active account.

        Args:
            account_id: The account.
            amount: How many dollars.
        """
        account = self._payer(account_id, amount)
        account["balance"] -= amount
        return {"balance": account["balance"], **self._history}

    def transfer_money(self, account_id: int, person: str, amount: int) -> Balance:
        """Moves money from an active account to the account of a person.

        Args:
            account_id: The account that pays.
            person: Who receives the money.
            amount: How many dollars.
        """
        account, receiver = self._payer(account_id, amount), find(self.accounts, "person", person)
        if account is receiver:
            raise ValueError(f"{person} owns account {account_id}")
        account["balance"] -= amount
        receiver["balance"] += amount
        return {"balance": account["balance"], **self._history}

    def freeze_account(self, account_id: int) -> AccountStatus:
        """Freezes an active account, so that no money can leave it.

        Args:
            account_id: The account.
        """
        return self._switch(account_id, "active", "frozen")

    def release_account(self, account_id: int) -> AccountStatus:
        """Makes a frozen account active again.

        Args:
            account_id: The account.
        """
        return self._switch(account_id, "frozen", "active")

    def _payer(self, account_id: int, amount: int) -> Record:
        account = find(self.accounts, "account_id", account_id)
        _require_positive(amount)
        if account["status"] == "frozen":
            raise ValueError(f"account {account_id} is frozen")
        if account["balance"] < amount:
            raise ValueError(f"balance is {account['balance']}")
        return account

    def _switch(self, account_id: int, before: str, after: str) -> AccountStatus:
        account = find(self.accounts, "account_id", account_id)
        if account["status"] != before:
            raise ValueError(f"account {account_id} is {account['status']}")
        account["status"] = after
        return {"status": after, **self._history}


def _require_positive(amount: int) -> None:
    if amount < 1:
        raise ValueError("amount must be positive")
