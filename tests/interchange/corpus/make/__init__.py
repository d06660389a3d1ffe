"""The programs that recorded the corpus, one a framework. README.md says how to install and run them."""
