#!/usr/bin/env bash
# SQLAlchemy-Continuum keeps no version of a change by an SQL expression, and shows its effect in the next transaction's
#   version.
#
# A reader would expect: a version for each flushed change of an object; only bulk statements, which have no object, are left
#   out.
# Guessed before running: a version with the value that the database computed.
# Seen on 2026-11-28, Python 3.11.7, SQLAlchemy 2.1.9, SQLAlchemy-Continuum 2.0.0: account.balance = Account.balance - 100 is
#   committed without a version. Continuum makes a row for the transaction, but none for the object: after the flush the
#   attribute is expired, so its history is empty. The change of the name in the next transaction brings a version with the new
#   balance.
# What follows: changes that are written as an expression to be safe against concurrent ones, such as counters and balances,
#   are missing from the history, or stand there under another transaction, with its user and time. Record them yourself.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check SQLAlchemy==2.1.9 SQLAlchemy-Continuum==2.0.0 || exit 2
"$work/venv/bin/python" - <<'PY'
import sys
import warnings
from importlib.metadata import version

import sqlalchemy
from sqlalchemy.orm import DeclarativeBase, Session, configure_mappers, mapped_column
from sqlalchemy_continuum import make_versioned, transaction_class, version_class

warnings.simplefilter("ignore")
names = ("SQLAlchemy", "SQLAlchemy-Continuum")
print("Python", sys.version.split()[0], *(f"{name} {version(name)}" for name in names))
make_versioned(user_cls=None)


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "account"
    __versioned__ = {}
    id = mapped_column(sqlalchemy.Integer, primary_key=True)
    name = mapped_column(sqlalchemy.String)
    balance = mapped_column(sqlalchemy.Integer)


configure_mappers()
engine = sqlalchemy.create_engine("sqlite://")
Base.metadata.create_all(engine)
Version, Transaction = version_class(Account), transaction_class(Account)
seen = []


def commit(session, change):
    session.commit()
    versions = session.scalars(sqlalchemy.select(Version).order_by(Version.transaction_id))
    rows = [(row.transaction_id, row.name, row.balance) for row in versions]
    transactions = session.scalar(sqlalchemy.select(sqlalchemy.func.count(Transaction.id)))
    seen.append((account.balance, transactions, rows))
    print(f"{change}: balance {account.balance}, {transactions} transactions, versions {rows}")


with Session(engine) as session:
    account = Account(name="ann", balance=500)
    session.add(account)
    commit(session, "created")
    account.balance = 400
    commit(session, "balance = 400")
    account.balance = Account.balance - 100
    commit(session, "balance = balance - 100")
    account.name = "Ann"
    commit(session, "name = 'Ann'")

first, second, fourth = (1, "ann", 500), (2, "ann", 400), (4, "Ann", 300)
expected = [
    (500, 1, [first]),
    (400, 2, [first, second]),
    (300, 3, [first, second]),
    (300, 4, [first, second, fourth]),
]
print("as seen before" if seen == expected else "CHANGED")
sys.exit(seen != expected)
PY
