"""What can go wrong, as one tree. Each error is one sentence: what was found, what was expected, the next step.

    AssayError                 exit 1   HTTP 500
      InputError               exit 2   HTTP 422   the data or a flag is not usable
        ReadError              exit 3   HTTP 422   a file could not be read
        TaskError              exit 4   HTTP 422   the question cannot be asked of this data
      BundleError              exit 5   HTTP 400   a .assay file is damaged, hostile or too new
      MissingExtra             exit 6   HTTP 501   a package has to be installed first
      BudgetError              exit 7   HTTP 503   time, memory or disk ran out before anything finished
      EndpointError            exit 8   HTTP 502   a remote model did not answer, or answered nonsense
"""

from __future__ import annotations

from typing import Any

from assay.words import Text


class AssayError(Exception):
    """One clear sentence, an exit code and an HTTP status. `template` has `{name}` holes, filled from `values`."""

    exit_code = 1
    http_status = 500

    def __init__(self, template: str | Text, /, **values: Any) -> None:
        self.text = template if isinstance(template, Text) else Text(template, values)
        super().__init__(str(self.text))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.text,)


class InputError(AssayError):
    exit_code = 2
    http_status = 422


class ReadError(InputError):
    exit_code = 3


class TaskError(InputError):
    exit_code = 4


class BundleError(AssayError):
    exit_code = 5
    http_status = 400


class MissingExtra(AssayError):
    """A feature's package is not installed: `MissingExtra("torch", extra="deep")`."""

    exit_code = 6
    http_status = 501

    def __init__(self, package: str | Text, /, extra: str = "") -> None:
        if isinstance(package, Text):
            super().__init__(package)
            return
        super().__init__(
            "The package '{package}' is not installed. Install it with: pip install 'assay[{extra}]'",
            package=package,
            extra=extra,
        )


class BudgetError(AssayError):
    exit_code = 7
    http_status = 503


class EndpointError(AssayError):
    exit_code = 8
    http_status = 502
