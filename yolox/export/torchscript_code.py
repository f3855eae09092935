"""The code of a TorchScript archive, read as text: straight lines of known calls, or refused."""

from __future__ import annotations

import ast
import re

from yolox.export.torchscript_ops import BUILTINS, PRIMITIVES, TENSOR_FUNCTIONS

# PyTorch's own reader of code is another than Python's: on these characters the two agree.
_ALPHABET = re.compile(r'[A-Za-z0-9_ \n"(),.:=>\[\]+-]*')
_METHOD = re.compile(r"forward\d*")
_WORD = re.compile(r"[\w. ]{0,40}")
_TYPES = {"Tensor", "int", "float", "bool", "number", "NoneType", "Device"}
_GENERIC = {"Optional", "List", "Tuple"}


class CodeCheck:
    """A file of an archive's code: classes whose methods are straight lines of known calls.

    Attributes:
        classes: full names of those that it defines.
        problems: in words.
    """

    def __init__(self, module: str) -> None:
        self._module = module
        self._locals: set[str] = set()
        self.classes: set[str] = set()
        self.problems: list[str] = []

    def check(self, content: bytes) -> None:
        """Fill the attributes."""
        try:
            text = content.decode("ascii")
            if not _ALPHABET.fullmatch(text):
                raise SyntaxError("a character that exported code never has")
            tree = ast.parse(text)
            for node in tree.body:
                self._class(node)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            self.problems.append(f"code that is none, in {self._module} ({error})")

    def _refuse(self, node: ast.AST, what: str = "") -> None:
        text = what or f"{ast.unparse(node)[:80]!r}"
        self.problems.append(f"{text} in {self._module}")

    def _class(self, node: ast.AST) -> None:
        if not (
            isinstance(node, ast.ClassDef)
            and [ast.unparse(base) for base in node.bases] == ["Module"]
            and not (node.keywords or node.decorator_list)
        ):
            return self._refuse(node)
        self.classes.add(f"{self._module}.{node.name}")
        for part in node.body:
            if isinstance(part, ast.FunctionDef):
                self._method(part)
            elif isinstance(part, ast.AnnAssign):
                if part.value is not None or not isinstance(part.target, ast.Name):
                    self._refuse(part)
                self._type(part.annotation)
            elif isinstance(part, ast.Assign):
                self._class_assignment(part)
            else:
                self._refuse(part)
        return None

    def _class_assignment(self, node: ast.Assign) -> None:
        """``__parameters__ = ["weight"]``, ``__annotations__["0"] = __torch__.x.Y``."""
        target, *more = map(ast.unparse, node.targets)
        if re.fullmatch(r"__annotations__\['\w+'\]", target) and not more:
            return self._type(node.value)
        names = node.value.elts if isinstance(node.value, ast.List) else [None]
        is_words = all(isinstance(name, ast.Constant) for name in names)
        if target not in ("__parameters__", "__buffers__") or more or not is_words:
            self._refuse(node)
        return None

    def _method(self, node: ast.FunctionDef) -> None:
        args = node.args
        odd = (args.posonlyargs, args.kwonlyargs, args.defaults, args.vararg, args.kwarg)
        if not _METHOD.fullmatch(node.name):
            return self._refuse(node, f"a method {node.name}")
        if any(odd) or node.decorator_list:
            return self._refuse(node)
        self._locals = set()
        for arg in args.args:
            self._bind(ast.Name(arg.arg))
        for annotation in (*(arg.annotation for arg in args.args), node.returns):
            if annotation is not None:
                self._type(annotation)
        for statement in node.body:
            if isinstance(statement, ast.Assign):
                self._expression(statement.value)
                for target in statement.targets:
                    self._bind(target)
            elif isinstance(statement, (ast.Return, ast.Expr)):
                if statement.value is not None:
                    self._expression(statement.value)
            else:
                self._refuse(statement)
        return None

    def _bind(self, target: ast.expr) -> None:
        names = target.elts if isinstance(target, ast.Tuple) else [target]
        for name in names:
            if isinstance(name, ast.Name) and name.id not in ("torch", "ops", *BUILTINS):
                self._locals.add(name.id)
            else:
                self._refuse(target)

    def _type(self, node: ast.expr) -> None:
        name = ast.unparse(node)
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) in _GENERIC:
            inner = node.slice
            for part in inner.elts if isinstance(inner, ast.Tuple) else [inner]:
                self._type(part)
        elif name in _TYPES or (isinstance(node, ast.Constant) and node.value is None):
            return
        elif not re.fullmatch(r"__torch__(\.\w+)+", name) or "torch.classes" in name:
            self._refuse(node, f"the type {name[:80]}")

    def _expression(self, node: ast.expr) -> None:
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str) and not _WORD.fullmatch(node.value):
                self._refuse(node)
        elif isinstance(node, ast.Name):
            if node.id not in self._locals | {"inf", "nan"}:
                self._refuse(node)
        elif isinstance(node, (ast.List, ast.Tuple)):
            for item in node.elts:
                self._expression(item)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            self._expression(node.operand)
        elif isinstance(node, ast.Attribute):
            if not re.fullmatch(r"CONSTANTS\.c\d+", ast.unparse(node)):
                self._expression(node.value)
        elif isinstance(node, ast.Call):
            self._call(node)
        else:
            self._refuse(node)

    def _call(self, node: ast.Call) -> None:
        function, arguments = node.func, list(node.args)
        name = ast.unparse(function)
        space, _, op = name.rpartition(".")
        if isinstance(function, ast.Attribute) and _METHOD.fullmatch(function.attr):
            self._expression(function.value)
        elif name == "annotate" and len(arguments) == 2:
            self._type(arguments.pop(0))
        elif name == "getattr" and len(arguments) == 2:
            if not isinstance(arguments[1], ast.Constant):
                self._refuse(node)
        elif not (
            name in BUILTINS
            or (space == "torch" and op in TENSOR_FUNCTIONS)
            or (space == "ops.prim" and op in PRIMITIVES)
        ):
            self._refuse(node, f"the operation {name[:80]}")
        for argument in (*arguments, *(keyword.value for keyword in node.keywords)):
            self._expression(argument)
