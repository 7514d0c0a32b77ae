// SPDX-License-Identifier: GPL-2.0-or-later

module traffic

go 1.19
