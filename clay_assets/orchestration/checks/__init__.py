"""What holds of the assets: gates in their bodies (`gates`), and checks of what they have published, a module for each
stage. The rules are the stages' own, in their `validity` modules; here is how Dagster is shown them.
"""
