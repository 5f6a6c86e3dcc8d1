"""Names of models that are refused, by their error, and what is said of each."""

from pathlib import Path

import pytest

import datbench
from datbench import Resolution, Setting
from datbench.errors import DatbenchError, MeasurementError, UnknownNameError, UsageError
from datbench.models.spec import LIBRARIES

AT_34 = Setting(Resolution(34, 34))

# "mine" is the module of the fixture; a star is the whole name; dots leave words out.
REFUSED: dict[type[DatbenchError], dict[str, str]] = {
    UnknownNameError: {
        "convnext_tiny": "did you mean convnext_t ... timm has timm:convnext_tiny",
        "efficientformer_l1": "timm has timm:efficientformer_l1",
        "dat_tt": "did you mean dat_t",
        "dat_x,num_classes=2": "unknown model 'dat_x'; did you mean dat_t",
        "dat_t,numclasses=3": "unknown option 'numclasses'; did you mean num_classes",
        "dat_t,img_size=384": "did you mean image_size",
        "dat_t+retinanot": "unknown head 'retinanot'; did you mean retinanet?",
        "dat_tt+retinanet": "unknown model 'dat_tt'; did you mean dat_t",
        "pvt_t,in_chans=4": "of pvt_t, num_classes can be chosen",
        "ceit_m": "ceit_s",
        "dpt_small": "did you mean dpt_s",
        "timm:resnet81": "unknown timm model 'resnet81'; did you mean",
        "timm:": "unknown timm model ''.",
        "timm:resnet18.nosuchtag": "unknown tag of timm's resnet18",
        "torchvision:resnet49": "unknown torchvision model 'resnet49'; did you mean resnet",
        "transformers:vitt": "unknown transformers model 'vitt'; did you mean vit",
        "transformers:vit,hiden_size=3": "unknown option of vit 'hiden_size'; did you mean hidden",
        "transformers:cvt_31": "did you mean cvt_21 or cvt_13",
        "transformers:microsoft/cvt-13": "unknown transformers model",
        "transformers:cvt_13,num_label=3": "option of transformers:cvt_13 'num_label'",
        "no_such_package:make": "there is no module 'no_such_package'",
        "torch.no_such_part:make": "there is no module 'torch.no_such_part'",
        "mine:Nett": "unknown factory 'Nett'; did you mean Net?",
        "mine:Net.tall": "unknown factory",
    },
    UsageError: {
        "dat_t,num_classes=-1": "num_classes: must not be negative",
        "dat_t,num_classes=ten": "num_classes: must be a whole number, not 'ten'",
        "dat_t,num_classes=True": "num_classes: must be a whole number",
        "dat_t,in_chans=0": "in_chans: must be a number from 1",
        "dat_t,drop_path=1": "drop_path: write a rate from 0 to below 1",
        "dat_t,drop_path=1e999": "drop_path",
        "dat_t,image_size=8": "image_size: must be a number from 32",
        "dat_t,": "'' is not an option; write name=value",
        "pvt_t,num_classes=0": "num_classes: write a whole number from 1",
        "dat_t+upernet,in_chans=4": "options stand before the head: dat_t,in_chans=4+upernet",
        "dat_t+retinanet+upernet": "two heads",
        "timm:resnet18,depth=3": "timm does not build it: ",
        "timm:resnet18,pretrained=True": "leave out pretrained",
        "torchvision:resnet18,weights=1": "no weights are needed to count",
        "torchvision:resnet18,widht=1": "torchvision does not build it: TypeError",
        "transformers:cvt_13,labels": "write name=value",
        "transformers:pvt_tiny,image_size=[3]": "write image_size as one number",
        "transformers:cvt_13,depth=3": "transformers does not build it: ",
        "transformers:pvt_tiny,hidden_sizes=[64]": "transformers does not build it: IndexError",
        "nowhere/net.py:Net": "there is no file nowhere/net.py",
        "x:": "write package.module:factory",
        ":x": "write package.module:factory",
        "a b:c": "write package.module:factory",
        "a:b:c": "write package.module:factory",
        "torch.nn:Linear,in_features": "'in_features' is not an option; write name=value",
        "mine:needs": "needs arguments: width, depth, heads; write ",
        "mine:needs,width=1": "* needs arguments: depth, heads; write *,depth=...,heads=....",
        "mine:Net,wide=3": "unexpected keyword argument 'wide'",
        "builtins:int": "returns int, which is not a torch.nn.Module",
        "mine:made": "is a model already; name the function or class that makes it",
        "string:digits": "is a str, not a function or class",
    },
    MeasurementError: {
        "timm:davit_tiny,window_size=seven": "davit_tiny",
        "transformers:cvt_13,depth=[1]": "* at 34x34, batch 1 on cpu: IndexError",
        "mine:raises": "raised KeyError: 'nothing here'",
        "mine:quits": "raised SystemExit: 0",
        "mine:QuitsLater": "on cpu: SystemExit: 7",
        "torch.nn:CosineSimilarity": "missing 1 required positional argument",
        "torch.nn:Linear,in_features=7,out_features=7": "at 34x34 on meta: mat1 and mat2 ",
    },
}


@pytest.mark.parametrize(
    ("error", "name", "words"),
    [(error, *row) for error, rows in REFUSED.items() for row in rows.items()],
)
def test_a_name_is_refused(
    factories: str, error: type[DatbenchError], name: str, words: str
) -> None:
    library = name.partition(":")[0]
    if name.startswith(LIBRARIES):
        pytest.importorskip(library, reason=f"needs datbench[{library}]", exc_type=ImportError)
    whole = name.replace("mine:", f"{factories}:")
    with pytest.raises(error) as refused:
        datbench.count_model(whole, AT_34)
    assert all(each in str(refused.value) for each in words.replace("*", whole).split(" ... "))
    assert "\n" not in str(refused.value)
    assert refused.type is error
    if name.startswith("dat_"):
        with pytest.raises(error):
            datbench.create_model(name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import no_such_dependency", "raised ModuleNotFoundError: No module named"),
        ("1 / 0", "importing it raised ZeroDivisionError"),
        ("def f(:", "importing it raised SyntaxError"),
    ],
)
def test_a_module_that_does_not_import(
    factories: str, tmp_path: Path, text: str, words: str
) -> None:
    (tmp_path / f"{factories}_broken.py").write_text(text)
    with pytest.raises(UsageError, match=words):
        datbench.count_model(f"{factories}_broken:make", AT_34)
