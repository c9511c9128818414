"""Every annotated tensor border of the package is checked while the tests run (shapes by jaxtyping, types by beartype)."""

from jaxtyping import install_import_hook

install_import_hook("fromnoise", "beartype.beartype")
