"""Modules of an application, as users write them. Four type checkers accept them in their strict modes."""
