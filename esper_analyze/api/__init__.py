"""The classes and functions behind ``import esper_analyze as ea``; nothing below imports them."""
