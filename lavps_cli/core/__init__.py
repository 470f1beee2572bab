"""Sections 2 and 3 of the paper; torch only.

Paper                       Code
--------------------------  ---------------------------------------------------------------
x_0, x_s, x_t               `x0`, `xs`, `xt`; the estimate returned to a user is `xhat`
y, A, sigma_y               `y`, `A`, `sigma_y`
w                           `w`, a standard normal draw, passed in where comparisons depend on it
t, s, t_k, T, K             `t`, `s`, `times[k]`, `schedule.T`, `num_steps`; s < t always
alpha_t, sigma_t            `schedule.alpha(t)`, `schedule.sigma(t)`
alpha_{t|s}, sigma_{t|s}    `alpha_ts`, `sigma_ts`; a square is `var_ts`
q_{t|s}, q_{s|0,t}          `forward_kernel`, `bridge`
D_{0|t}                     `denoiser(xt, t)`
l_0(y | ., A)               `likelihood`
mu, rho                     `mu`, `rho`; rho is a variance, a log is `log_rho`
c                           `c`, class `Context`
lambda_phi                  `inference`
L                           `objective`, values `loss`, one per image
G_k, R, M, eta              `grad_steps_start`/`_end`, `num_gibbs`, `num_denoise`, `lr`
r_switch, script-T          `switch_ratio`, `covers(t)`
"""
