import cells

from latentbench.cells.catalogue import options


def test_the_method_of_another_package_is_found_beside_ours():
    composed = cells.composed  # importing cells puts the package on the path
    methods = options("method")
    assert {"acme", "slerp"} <= methods.keys()
    assert methods["acme"].cls.__module__ == "acme.parts"
    assert composed


def test_its_settings_can_be_overridden(tmp_path):
    config = cells.composed(tmp_path, "method.gain=3")
    assert config.method._target_ == "acme.parts.Shift"
    assert config.method.gain == 3


def test_a_benchmark_names_its_metrics_and_the_user_may_name_others(tmp_path):
    assert list(cells.composed(tmp_path).metric) == ["acme_mae", "acme_masked"]
    assert list(cells.composed(tmp_path, "metric=[acme_mae]").metric) == ["acme_mae"]
    assert cells.composed(tmp_path, "metric.acme_mae.factor=2").metric.acme_mae.factor == 2


def test_a_class_is_built_with_the_settings_of_its_yaml():
    options.cache_clear()  # tests of other files may have read them without the package
    assert options("benchmark")["acme"].build().n == 10
    assert options("metric")["acme_mae"].build().factor == 1.0
