"""What the networks read and answer."""

import pytest
import torch

from hdrcli.nets import forms

EVERY = sorted(forms.FORMS)


def bracket(frames=3, step=4.0, batch=2, size=(8, 12), seed=0):
    """A static scene H in [0, 1] relative to the shortest frame, as frames with their ratios."""
    dice = torch.Generator().manual_seed(seed)
    light = torch.rand(batch, 3, *size, generator=dice) ** 3
    ratios = step ** torch.arange(frames, dtype=torch.float32).expand(batch, -1)
    linear = (light[:, None] * ratios[:, :, None, None, None]).clamp(0, 1)
    return light, linear, ratios


@pytest.mark.parametrize("name", EVERY)
def test_the_right_answer_gives_the_radiance(name):
    light, _, ratios = bracket()
    form = forms.FORMS[name]
    radiance = light * ratios[:, 1, None, None, None]
    answer = forms.encoded(form, radiance, ratios)
    torch.testing.assert_close(forms.radiance(form, answer, ratios), radiance, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", EVERY)
def test_answers_stay_in_the_range_of_the_network(name):
    _, _, ratios = bracket()
    form = forms.FORMS[name]
    answer = forms.encoded(form, torch.full((2, 3, 4, 4), 1e4), ratios)
    assert torch.isfinite(answer).all()
    if form.output != "gamma":  # ADNet's is not bounded above
        assert answer.max() <= 1


def test_of_several_outputs_the_last_counts():
    first, last = torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)
    assert forms.answer((first, last)) is last
    assert forms.answer(first) is first


def test_linear_half_is_the_same_light_in_every_frame_that_sees_it():
    light, linear, ratios = bracket()
    halves = [x[:, 3:] for x in forms.inputs(forms.FORMS["psfnet"], linear, ratios)]
    torch.testing.assert_close(halves[0], light)
    seen = linear[:, 2] < 1
    torch.testing.assert_close(halves[2][seen], light[seen])


def test_first_half_is_gamma_encoded():
    _, linear, ratios = bracket()
    for name, gamma in (("psfnet", 2.2), ("adnet", 2.24)):
        for index, x in enumerate(forms.inputs(forms.FORMS[name], linear, ratios)):
            torch.testing.assert_close(x[:, :3], linear[:, index] ** (1 / gamma))


def test_hdrgan_reads_both_halves_in_minus_one_to_one():
    light, linear, ratios = bracket()
    inputs = forms.inputs(forms.FORMS["hdrgan"], linear, ratios)
    torch.testing.assert_close(inputs[0][:, 3:], 2 * forms.tone(light) - 1)
    black = forms.inputs(forms.FORMS["hdrgan"], torch.zeros_like(linear), ratios)
    assert all((x == -1).all() for x in black)


def test_adnet_aligns_to_the_reference_and_leaves_it_as_it_is():
    _, linear, ratios = bracket()
    short, reference, _ = forms.inputs(forms.FORMS["adnet"], linear, ratios)
    torch.testing.assert_close(reference[:, 3:], reference[:, :3])
    seen = linear[:, 1] < 1
    torch.testing.assert_close(short[:, 3:][seen], reference[:, 3:][seen], rtol=1e-4, atol=1e-5)


def test_apntfusion_gets_light_alone_and_the_ratio_of_the_medium():
    light, linear, ratios = bracket(step=2.0)
    *frames, ratio = forms.inputs(forms.FORMS["apntfusion"], linear, ratios)
    torch.testing.assert_close(frames[0], light)
    assert ratio.tolist() == [2.0, 2.0]


def test_video_gets_the_frames_in_order_of_time():
    _, linear, _ = bracket(frames=5)
    ratios = torch.tensor([[1.0, 4, 1, 4, 1]]).expand(2, -1)
    codes, told = forms.inputs(forms.FORMS["deephdrvideo"], linear, ratios)
    torch.testing.assert_close(codes, linear ** (1 / 2.2))
    assert told is ratios


def test_twice_the_exposure_of_the_reference_is_half_the_radiance_of_the_same_light():
    light, _, ratios = bracket()
    form = forms.FORMS["psfnet"]
    twice = ratios.clone()
    twice[:, 1] *= 2
    once = forms.radiance(form, light, ratios)
    torch.testing.assert_close(forms.radiance(form, light, twice), 2 * once)


def test_tone_and_back():
    light = torch.linspace(0, 1, 100)
    torch.testing.assert_close(forms.untone(forms.tone(light)), light, rtol=1e-4, atol=1e-6)


def test_adnet_with_a_sigmoid_answers_linear_light():
    assert forms.form_of("adnet", "sigmoid").output == "linear"
    assert forms.form_of("adnet", "relu").output == "gamma"
    with pytest.raises(KeyError):
        forms.form_of("nonsense")
